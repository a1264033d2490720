"""A checkpoint of the paper's code becomes ours by one command."""

import numpy as np
import pytest
import torch
from PIL import Image

from image_gen.generator import Generator
from image_gen.official_checkpoint import read_official_checkpoint


@pytest.fixture
def autoencoder(tmp_path):
    """The words for a small AutoencoderKL of 4 channels."""
    diffusers = pytest.importorskip("diffusers")
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    diffusers.AutoencoderKL(block_out_channels=(8, 8), norm_num_groups=4, **blocks).save_pretrained(tmp_path / "kl")
    return f"autoencoder.path={tmp_path / 'kl'}"


def test_both_sets_of_weights_become_checkpoints(tmp_path, run_command, real_data, autoencoder):
    pytest.importorskip("torchvision")
    file = real_data("parity/official_checkpoint.pkl")
    words = [f"checkpoint={file}", f"output={tmp_path / 'ours'}", "size=8", autoencoder]
    code, _, errors = run_command("import_official", *words)
    assert code == 2
    assert "say heads=" in errors
    code, out, errors = run_command("import_official", *words, "heads=4")
    assert code == 0, errors
    assert "after 4 updates" in out
    ema, online = (Generator.from_pretrained(tmp_path / "ours" / name) for name in ("ema", "online"))
    assert ema.config.metadata["official"]["step"] == 4
    read = read_official_checkpoint(file)
    for made, params in ((ema, read.params_ema), (online, read.params)):
        np.testing.assert_array_equal(made.network.output.weight, params["FinalLayer_0/Dense_1/kernel"].T)
    noise, labels = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 10])
    first, second = (made.generate(labels, 4, guidance=1.5, noise=noise) for made in (ema, online))
    assert not torch.equal(first, second)
    assert ema.sample(labels, 1).shape == (2, 3, 16, 16)
    code, _, errors = run_command("sample_images", f"checkpoint={tmp_path / 'ours/ema'}", "steps=[1]", "count=2")
    assert code == 0, errors
    code, _, errors = run_command("import_official", *words, "heads=4")
    assert code == 2
    assert "holds a checkpoint already" in errors


def test_a_checkpoint_without_labels_samples_with_the_null_label(tmp_path, run_command, real_data, autoencoder):
    """The official code trains images without labels on the null label of a table; no other row was trained."""
    words = [f"checkpoint={real_data('parity/official_checkpoint.pkl')}", "size=8", "heads=4", autoencoder]
    for name, labels in (("with", "true"), ("without", "false")):
        code, _, errors = run_command("import_official", *words, f"output={tmp_path / name}", f"labels={labels}")
        assert code == 0, errors
    table, none = (Generator.from_pretrained(tmp_path / name / "ema") for name in ("with", "without"))
    assert none.config.num_classes == 0
    noise = torch.randn(2, 4, 8, 8)
    null = torch.full((2,), table.config.num_classes)
    expected = table.generate(null, 2, noise=noise)
    assert torch.equal(none.generate(torch.zeros(2, dtype=torch.int64), 2, noise=noise), expected)

    # and a training goes on from there
    (tmp_path / "images").mkdir()
    for number in range(2):
        Image.effect_noise((16, 16), 50 + number).convert("RGB").save(tmp_path / f"images/{number}.png")
    sizes = none.config.network.options
    words = [f"network.{name}={sizes[name]}" for name in ("patch", "width", "depth", "heads", "compatibility")]
    words += ["objective=shortcut_paper", "objective.condition_dropout=0", "objective.bootstrap_guidance=1"]
    words += ["dataset=folder", f"dataset.path={tmp_path / 'images'}", "dataset.size=16", "autoencoder=kl", autoencoder]
    words += [f"latents={tmp_path / 'latents'}", "trainer.steps=1", "trainer.batch_size=16", "device=cpu"]
    words += ["trainer.learning_rate=1e-9", f"init_from={tmp_path / 'without/online'}", f"output={tmp_path / 'run'}"]
    code, _, errors = run_command("train_image", *words)
    assert code == 0, errors
    begun = Generator.from_pretrained(tmp_path / "without" / "online").network.state_dict()
    for name, value in Generator.from_pretrained(tmp_path / "run/checkpoints/last").network.state_dict().items():
        torch.testing.assert_close(value, begun[name], rtol=0, atol=1e-5)


def test_a_missing_file_is_named(tmp_path, run_command):
    code, _, errors = run_command("import_official", f"checkpoint={tmp_path}/none.pkl", f"output={tmp_path}/ours")
    assert code == 2
    assert "none.pkl" in errors
    assert not (tmp_path / "ours").exists()
