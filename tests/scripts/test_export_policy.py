"""The command: a checkpoint becomes a file, and the example acts with it where there is no torch."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from small_policy import small_policy

from shortcut_policy.policy import Policy
from shortcut_policy.realtime.export import Exported

ROOT = Path(__file__).parents[2]

WITHOUT_TORCH = """
import json, runpy, sys
import numpy as np
sys.modules["torch"] = None  # an import of it fails
example, path, observations = sys.argv[1:]
sys.argv = [example, path]
policy = runpy.run_path(example)["OnnxPolicy"](path)
for observation in json.loads(observations):
    print(json.dumps(policy.act({key: np.array(value) for key, value in observation.items()}).tolist()))
runpy.run_path(example, run_name="__main__")
assert not any(name.startswith("torch") and module for name, module in sys.modules.items())
"""


@pytest.fixture
def checkpoint(tmp_path):
    """A policy whose actions depend on what it sees; To = 2, Ta = 3."""
    network = {"name": "unet1d", "options": {"widths": [4], "step_embedding_dim": 4, "groups": 1, "kernel_size": 3}}
    small_policy(metadata={"task": "toy"}, network=network).save_pretrained(tmp_path / "policy")
    return tmp_path / "policy"


def test_exported_and_run_without_torch(checkpoint, tmp_path, run_command):
    target = tmp_path / "exported" / "policy.onnx"
    words = (f"checkpoint={checkpoint}", f"output={target}", "latency_calls=3")
    code, out, errors = run_command("export_policy", *words)
    assert code == 0, errors
    for name in ("torch, eager", "onnx"):
        assert re.search(rf"^\| {name} \| \d+\.\d\d ms \| \d+\.\d\d ms \|$", out, re.MULTILINE), out
    assert float(re.search(r"largest difference from torch: (\S+) of the actions' range", out)[1]) < 1e-5
    assert f"{target}: {target.stat().st_size / 2**20:.1f} MiB" in out
    assert "latency of one robot, 1 steps" in out
    about = {entry.key: json.loads(entry.value) for entry in onnx.load(target).metadata_props}
    assert about["checkpoint_sha256"] == json.loads((checkpoint / "config.json").read_text())["sha256"]
    assert about["task"] == "toy"

    code, _, errors = run_command("export_policy", *words)
    assert (code, errors) == (
        2,
        f"error: {target} exists already: choose another name or say overwrite=true\n",
    )

    rng = np.random.default_rng(1)
    stream = [{"position": rng.uniform(0, 512, 2).tolist(), "angle": rng.uniform(-3, 3, 1).tolist()} for _ in range(5)]
    run = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(ROOT / "examples/run_onnx.py"), str(target), json.dumps(stream)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    lines = run.stdout.splitlines()
    policy, rng = Policy.from_pretrained(checkpoint), np.random.default_rng(0)
    expected = []
    for now in (0, 3):
        pair = [stream[max(now - 1, 0)], stream[now]]
        history = {key: torch.tensor([[step[key] for step in pair]]) for key in stream[0]}
        noise = torch.from_numpy(rng.standard_normal((1, 8, 2)).astype(np.float32))
        expected += policy.sample(history, noise=noise)[0, :3].tolist()
    np.testing.assert_allclose([json.loads(line) for line in lines[:5]], expected[:5], rtol=1e-5)
    assert len(lines) == 5 + 6, "and by itself two chunks of three actions"


def test_native_code_is_made_and_measured_by_its_own_functions(checkpoint, tmp_path, run_command, monkeypatch):
    """What they do is tested with them; here, what they are asked for."""
    asked, target = {}, tmp_path / "policy.pt2"

    def export(policy, path, num_steps, batch_size, **options):
        asked.update(path=path, num_steps=num_steps, batch_size=batch_size, **options)
        return Exported(path, 0.25, 2**20)

    def load(path):
        assert path == target
        return lambda observation, noise: asked.update(
            shapes={key: value.shape for key, value in observation.items()}, noise=noise.shape
        )

    monkeypatch.setattr("shortcut_policy.realtime.export_aoti.export_aoti", export)
    monkeypatch.setattr("shortcut_policy.realtime.export_aoti.load_aoti", load)
    words = ("format=aoti", "num_steps=2", "batch_size=3", "tolerance=0.01", "overwrite=true", "latency_calls=1")
    code, out, errors = run_command("export_policy", f"checkpoint={checkpoint}", f"output={target}", *words)
    assert code == 0, errors
    assert asked == {
        "path": target,
        "num_steps": 2,
        "batch_size": 3,
        "tolerance": 0.01,
        "overwrite": True,
        "checkpoint_sha256": json.loads((checkpoint / "config.json").read_text())["sha256"],
        "shapes": {"position": (3, 2, 2), "angle": (3, 2, 1)},
        "noise": (1, 3, 8, 2),
    }
    assert "| aoti |" in out
    assert "2.5e-01 of the actions' range" in out
    assert "latency of 3 robots, 2 steps" in out


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (["checkpoint=nowhere"], "nowhere"),
        ([], "checkpoint"),
        (["format=tflite"], "format must be one of onnx, aoti, got 'tflite'"),
        (["num_steps=0"], "num_steps must be positive, got 0"),
        (["latency_calls=0"], "latency_calls must be positive, got 0"),
        (["tolerance=0"], "tolerance must be positive, got 0.0"),
        (["batch_size=0"], "batch_size must be positive, or null for any, got 0"),
        (["format=aoti", "batch_size=null"], "batch_size=null is for format=onnx"),
        (["output=policy.pt"], "must be called something.onnx, got 'policy.pt'"),
    ],
)
def test_wrong_values_get_one_sentence(checkpoint, run_command, tmp_path, monkeypatch, words, quoted):
    monkeypatch.chdir(tmp_path)
    if words and not words[0].startswith("checkpoint"):
        words = [f"checkpoint={checkpoint}", *words]
    code, _, errors = run_command("export_policy", *words)
    assert code == 2
    assert quoted in errors
    assert errors.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]
