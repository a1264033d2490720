"""Image generators by command: trained, resumed, sampled."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from image_gen.autoencoders import AutoencoderConfig
from image_gen.generator import Generator
from image_gen.image_sources import DatasetConfig
from image_gen.interpolation import slerp
from shortcut_policy.config import from_mapping
from shortcut_policy.core.objectives import objective_class
from shortcut_policy.training.config import TrainerConfig

pytest.importorskip("sklearn")
pytest.importorskip("torchvision")

CONFIGS = Path(__file__).parents[2] / "configs"
TINY = ("network.width=16", "network.depth=1", "network.heads=2", "trainer.batch_size=16", "trainer.progress=false")


@pytest.mark.parametrize("objective", ["shortcut", "mean_flow", "consistency_distillation"])
def test_digits_train_and_are_sampled_in_any_number_of_steps(tmp_path, run_command, objective):
    output = tmp_path / "run"
    words = ["dataset=digits", f"objective={objective}", "trainer.steps=4", *TINY, f"output={output}", "device=cpu"]
    code, out, errors = run_command("train_image", *words)
    assert code == 0, errors
    assert "trained 4 steps" in out
    made = Generator.from_pretrained(output / "checkpoints" / "last")
    assert made.config.metadata["dataset"]["name"] == "digits"
    assert made.sample(torch.arange(3), 2).shape == (3, 1, 8, 8)
    code, _, errors = run_command("train_image", *words)
    assert code == 2
    assert "finished" in errors

    drawn = ["steps=[4,1]", "count=6", "columns=3", "scale=2"]
    code, out, errors = run_command("sample_images", f"checkpoint={output}", *drawn)
    assert code == 0, errors
    with Image.open(output / "samples.png") as picture:
        grid = 3 * (16 + 2) + 2  # three images of 16 pixels with a line of 2 around each
        assert picture.size == (2 * grid + 8, 16 + 2 * (16 + 2) + 2)


def test_the_default_learns_the_flow_first(tmp_path, run_command):
    words = ["dataset=digits", "trainer.steps=5", "trainer.log_every=1", *TINY, f"output={tmp_path / 'run'}"]
    code, _, errors = run_command("train_image", *words, "device=cpu")
    assert code == 0, errors
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    bootstrapped = [line["step"] for line in lines if "train/bootstrap_loss" in line]
    assert bootstrapped == [4, 5]


def test_the_papers_training_runs(tmp_path, run_command):
    """Its network, objective and trainer together, in small and in bf16; without its objective it is refused."""
    words = ["dataset=digits", *TINY, "network.compatibility=official", "network.checkpointing=true", "device=cpu"]
    paper = ["objective=shortcut_paper", "trainer=imagenet256", "trainer.compile=false", "trainer.batch_size=64"]
    words += [f"output={tmp_path / 'run'}"]
    code, _, errors = run_command("train_image", *words, *paper, "trainer.steps=2", "trainer.log_every=1")
    assert code == 0, errors
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert all(0 < line["train/flow_loss"] < 100 for line in lines)
    assert 0 < lines[-1]["train/bootstrap_loss"] < 100  # the network begins as 0, and agrees with itself
    assert Generator.from_pretrained(tmp_path / "run/checkpoints/last").objective.shared_data
    code, _, errors = run_command("train_image", *words, "trainer.steps=2", f"output={tmp_path / 'other'}")
    assert (code, errors.count("\n")) == (2, 1)
    assert "no embedding of d = 0, which this objective tells it: say objective=shortcut_paper" in errors


def test_a_training_begins_with_a_flow_or_distils_one(tmp_path, run_command):
    words = ["dataset=digits", *TINY, "trainer.steps=1", "trainer.learning_rate=1e-9", "device=cpu"]
    flow = tmp_path / "flow"
    code, _, errors = run_command("train_image", *words, "objective=flow_matching", f"output={flow}")
    assert code == 0, errors
    code, _, errors = run_command(
        "train_image", *words, "objective=shortcut", f"init_from={flow}", f"output={tmp_path / 'begun'}"
    )
    assert code == 0, errors
    # a step with such a learning rate changes next to nothing
    first, second = (
        Generator.from_pretrained(tmp_path / name / "checkpoints/last").network.state_dict()
        for name in ("flow", "begun")
    )
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, rtol=0, atol=1e-5)
    distilled = ["objective=consistency_distillation", "objective.teacher_fraction=0"]
    code, _, errors = run_command(
        "train_image", *words, *distilled, f"teacher={flow}", f"output={tmp_path / 'distilled'}"
    )
    assert code == 0, errors
    for more, quoted in (
        (["objective=shortcut", f"init_from={flow}", "network.depth=2"], "has network"),
        (["objective=shortcut_late", f"init_from={flow}"], "say objective.sigma_data=null"),
        ([*distilled, f"teacher={tmp_path / 'begun'}"], "was trained by shortcut: it must be flow_matching"),
        ([*distilled], "give one (teacher=CHECKPOINT)"),
    ):
        code, _, errors = run_command("train_image", *words, *more, f"output={tmp_path / 'refused'}")
        assert (code, errors.count("\n")) == (2, 1)
        assert quoted in errors


def test_latents_are_trained_on_and_become_pictures(tmp_path, run_command, real_data):
    folder = real_data("weights/taef2_encoder.pth").parent
    for number in range(4):
        (tmp_path / "images" / "cat").mkdir(parents=True, exist_ok=True)
        Image.effect_noise((32, 32), 50 + number).convert("RGB").save(tmp_path / f"images/cat/{number}.png")
    (tmp_path / "images" / "cat" / "4.png").write_bytes(b"not a picture")
    words = ["dataset=folder", f"dataset.path={tmp_path / 'images'}", "dataset.size=32", *TINY, "trainer.batch_size=4"]
    words += ["autoencoder=taef2", f"autoencoder.path={folder}", f"latents={tmp_path / 'latents'}", "device=cpu"]
    code, out, errors = run_command("train_image", *words, "trainer.steps=2", f"output={tmp_path / 'run'}")
    assert code == 0, errors
    assert "note: 1 images of" in out
    assert "cannot be decoded and are left out, 4 remain" in out
    made = Generator.from_pretrained(tmp_path / "run/checkpoints/last")
    assert made.noise_shape == (32, 4, 4)
    assert made.sample(torch.zeros(2, dtype=torch.int64), 1).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (["dataset.source=digit"], "digits, parquet, folder, huggingface, got 'digit'"),
        (["dataset=mnist", "dataset.path=nowhere"], "dataset.path=nowhere"),
        (["dataset.limit=0"], "0"),
        (["autoencoder=taef2", "autoencoder.path=nowhere"], "nowhere/taef2_encoder.pth does not exist"),
        (["network.heads=3"], "heads=3"),
        (["+network.layers=3"], "layers"),
        (["network=unet_tiny"], "'unet1d'"),
        (["objective.base_steps=3"], "3"),
    ],
)
def test_wrong_values_get_one_sentence(tmp_path, run_command, words, quoted):
    output = tmp_path / "run"
    code, _, errors = run_command("train_image", *words, f"output={output}")
    assert code == 2
    assert quoted in errors
    assert errors.count("\n") == 1
    assert not output.exists()


def test_sampling_says_what_is_wrong(tmp_path, run_command):
    checkpoint = f"checkpoint={tmp_path}"
    for words, quoted in (([], str(tmp_path)), (["steps=[0]"], "[0]"), (["count=0"], "0")):
        code, _, errors = run_command("sample_images", checkpoint, *words)
        assert code == 2
        assert quoted in errors


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["trainer=imagenet256", "network=dit_b2", "dataset=imagenet", "autoencoder=kl"], (810_000, 256, 1e-4, 0.1)),
        (["trainer=celebahq256", "network=dit_xl2", "dataset=celebahq", "autoencoder=kl"], (410_000, 64, 1e-4, 0.1)),
        (["trainer=gpu_image", "dataset=cifar10", "network=dit_s2"], (50_000, 256, 3e-4, 0.0)),
    ],
)
def test_the_presets_fit_together(words, expected):
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(CONFIGS), version_base=None):
        composed = compose("train_image", overrides=[*words, "objective=shortcut_paper"])
        values = OmegaConf.to_container(composed, resolve=False)
    trainer = from_mapping(TrainerConfig, {**values["trainer"], "seed": 0})
    assert (trainer.steps, trainer.batch_size, trainer.learning_rate, trainer.weight_decay) == expected
    dataset = from_mapping(DatasetConfig, values["dataset"])
    assert dataset.path
    if values["autoencoder"]:
        assert from_mapping(AutoencoderConfig, values["autoencoder"]).scale == 0.18215
    name = values["objective"].pop("name")
    objective = from_mapping(objective_class(name), values["objective"])
    assert (objective.clip, objective.bootstrap_guidance, objective.levels) == (4.0, 1.5, "official")


def test_samples_in_between_run_from_one_noise_to_another(tmp_path, run_command):
    output = tmp_path / "run"
    words = ["dataset=digits", "trainer.steps=2", *TINY, f"output={output}", "device=cpu"]
    assert run_command("train_image", *words)[0] == 0
    drawn = ["steps=[1]", "count=2", "interpolate=5", "scale=2", f"output={tmp_path / 'between.png'}"]
    code, out, errors = run_command("sample_images", f"checkpoint={output}", *drawn)
    assert code == 0, errors
    assert "2 ways" in out
    with Image.open(tmp_path / "between.png") as picture:
        assert picture.size == (5 * (16 + 2) + 2, 16 + 2 * (16 + 2) + 2)  # five columns, two rows below the title


def test_the_way_between_two_noises_has_the_norm_of_noise():
    first, last = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).double()
    path = slerp(first, last, 7)
    assert path.shape == (3, 7, 4, 8, 8)
    torch.testing.assert_close(path[:, 0], first)
    torch.testing.assert_close(path[:, -1], last)
    norms = path.flatten(2).norm(dim=2)
    ends = torch.stack([norms[:, 0], norms[:, -1]])
    assert (norms > 0.95 * ends.min(0).values[:, None]).all()
    assert (norms < 1.05 * ends.max(0).values[:, None]).all()
    half = path[0, 3].flatten()
    cosines = [half @ end[0].flatten() / half.norm() / end[0].norm() for end in (first, last)]
    torch.testing.assert_close(*cosines, rtol=0.1, atol=0.0)
