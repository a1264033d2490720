"""Training images by several processes: the same as by one, and divided weights are resumed by any number of them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from image_gen.generator import Generator

pytest.importorskip("sklearn")

ROOT = Path(__file__).parents[2]
WORDS = (
    *("dataset=digits", "network.width=16", "network.depth=2", "network.heads=2"),
    *("objective=shortcut", "objective.base_steps=8"),  # its teacher is an average, which is sharded too
    *("trainer.steps=4", "trainer.batch_size=16", "trainer.checkpoint_every=2", "trainer.keep_checkpoints=5"),
    "trainer.log_every=1",
    *("trainer.progress=false", "trainer.sharding=fsdp", "device=cpu", "trainer.target_ema.decay=0.9"),
)


def train(folder, processes, *words):
    """Run the command in as many processes: folder/run."""
    folder.mkdir(exist_ok=True)
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*launcher, str(ROOT / "scripts" / "train_image.py"), *WORDS, *words, "output=run"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return folder / "run"


def cut_short(run, folder):
    """A copy of the run, below the folder, as it was after its second update."""
    shutil.copytree(run, folder / "run", symlinks=True)
    (folder / "run" / "finished.json").unlink()
    (folder / "run" / "checkpoints" / "last").unlink()
    shutil.rmtree(folder / "run" / "checkpoints" / "step_00000004")
    return folder


def weights(run):
    return load_file(run / "checkpoints" / "last" / "model.safetensors")


def assert_same_training(first, second):
    logs = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (first, second)]
    losses = [[line["train/loss"] for line in log if "train/loss" in line][-1] for log in logs]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-4, atol=1e-6)


def test_divided_weights_train_as_whole_ones_and_resume_on_any_number_of_processes(tmp_path):
    alone = train(tmp_path / "alone", 1)
    assert_same_training(alone, train(tmp_path / "whole", 2, "trainer.sharding=null"))
    two = train(tmp_path / "two", 2)
    assert_same_training(alone, two)

    state = two / "checkpoints" / "last" / "training_state"
    files = sorted(path.name for path in state.glob("*.safetensors"))
    assert files == ["tensors_00001_of_00002.safetensors", "tensors_00002_of_00002.safetensors"]
    sizes = [path.stat().st_size for path in state.glob("*.safetensors")]
    assert max(sizes) < 1.2 * min(sizes), "each holds about half"
    Generator.from_pretrained(two / "checkpoints" / "last").sample(torch.arange(2), 1)

    assert_same_training(train(cut_short(two, tmp_path / "two_then_one"), 1), two)
    assert_same_training(train(cut_short(alone, tmp_path / "one_then_two"), 2), alone)
    assert_same_training(train(cut_short(two, tmp_path / "two_then_two"), 2), two)


def test_a_missing_part_of_the_state_is_noticed(tmp_path, run_command, monkeypatch):
    folder = cut_short(train(tmp_path / "two", 2), tmp_path / "part")
    (
        folder / "run" / "checkpoints" / "step_00000002" / "training_state" / "tensors_00002_of_00002.safetensors"
    ).unlink()
    monkeypatch.chdir(folder)
    code, _, errors = run_command("train_image", *WORDS, "output=run")
    assert code == 2
    assert "1 of 2 files" in errors
