"""Image generators by command: trained, resumed, sampled."""

import pytest
import torch
from PIL import Image

from image_gen.generator import Generator

pytest.importorskip("sklearn")
pytest.importorskip("torchvision")

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


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (["dataset.source=digit"], "digits, parquet, folder, huggingface, got 'digit'"),
        (["dataset=mnist", "dataset.path=nowhere"], "dataset.path=nowhere"),
        (["dataset.limit=0"], "0"),
        (["autoencoder=taef2", "autoencoder.path=nowhere"], "nowhere holds no taef2_encoder.pth"),
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
