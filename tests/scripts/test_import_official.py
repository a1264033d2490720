"""A checkpoint of the paper's code becomes ours by one command."""

import pytest
import torch

from image_gen.generator import Generator


def test_both_sets_of_weights_become_checkpoints(tmp_path, run_command, real_data):
    pytest.importorskip("torchvision")
    words = [f"checkpoint={real_data('parity/official_checkpoint.pkl')}", f"output={tmp_path / 'ours'}", "size=8"]
    code, _, errors = run_command("import_official", *words)
    assert code == 2
    assert "say heads=" in errors
    code, out, errors = run_command("import_official", *words, "heads=4")
    assert code == 0, errors
    assert "after 4 updates" in out
    ema, online = (Generator.from_pretrained(tmp_path / "ours" / name) for name in ("ema", "online"))
    assert ema.config.metadata["official"]["step"] == 4
    noise, labels = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([1, 10])
    first, second = (made.sample(labels, 4, guidance=1.5, noise=noise) for made in (ema, online))
    assert first.shape == (2, 4, 8, 8)
    assert not torch.equal(first, second)
    code, _, errors = run_command("import_official", *words, "heads=4")
    assert code == 2
    assert "holds a checkpoint already" in errors


def test_a_missing_file_is_named(tmp_path, run_command):
    code, _, errors = run_command("import_official", f"checkpoint={tmp_path}/none.pkl", f"output={tmp_path}/ours")
    assert code == 2
    assert "none.pkl" in errors
    assert not (tmp_path / "ours").exists()
