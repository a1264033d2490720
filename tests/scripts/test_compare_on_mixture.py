"""The comparison of objectives in the plane."""

import json
from pathlib import Path

import pytest
import yaml

pytest.importorskip("matplotlib")

from shortcut_policy.core.objectives import objective_names
from shortcut_policy.mixture_results import read_mixture_result

CONFIG = Path(__file__).parents[2] / "configs" / "compare_on_mixture.yaml"
SMALL = (
    "trainer.steps=40",
    "trainer.batch_size=64",
    "trainer.progress=false",
    "seeds=[0,1]",
    "steps=[1,4]",
    "count=64",
    "shown=8",
    "network={width: 16, blocks: 1, step_embedding_dim: 8}",
)


def test_every_objective_is_compared(tmp_path, run_command):
    assert set(yaml.safe_load(CONFIG.read_text())["objectives"]) == set(objective_names())
    words = [*SMALL, f"folder={tmp_path / 'runs'}", f"results={tmp_path / 'results'}"]
    code, out, errors = run_command("compare_on_mixture", *words)
    assert code == 0, errors
    files = sorted((tmp_path / "results").iterdir())
    assert [path.name for path in files] == [f"mixture_comparison_{name}.json" for name in objective_names()]
    for path in files:
        result = read_mixture_result(path)
        assert [len(row.samples) for row in result.rows] == [8, 8]
        assert all(len(row.per_seed) == 2 for row in result.rows)
        assert result.updates == 40
    assert "| progressive distillation |" in out
    assert (tmp_path / "runs" / "mixture.png").read_bytes().startswith(b"\x89PNG")

    # a lost result is measured again without training again, and is the same
    lost = files[0]
    before = json.loads(lost.read_text())
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")}
    lost.unlink()
    assert run_command("compare_on_mixture", *words)[0] == 0
    assert json.loads(lost.read_text())["rows"] == before["rows"]
    assert times == {path: path.stat().st_mtime_ns for path in (tmp_path / "runs").rglob("*.safetensors")}

    # with other values it is refused, by its results or by its trainings
    code, _, errors = run_command("compare_on_mixture", *words, "steps=[1,2]")
    assert code == 2
    assert "has steps [1, 4], not [1, 2]" in errors
    lost.unlink()
    code, _, errors = run_command(
        "compare_on_mixture", *words, "trainer.learning_rate=0.1", "only=[consistency_distillation]"
    )
    assert code == 2
    assert "holds another training" in errors


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("+objectives.shortcuts={}", "'shortcuts': known are "),
        ("+objectives.shortcut.speed=1", "objectives.shortcut.speed"),
        ("mixture.modes=1", "1"),
        ("seeds=[]", "seeds"),
        ("count=1", "1"),
        ("shown=0", "0"),
        ("only=[shortcuts]", "'shortcuts'"),
        ("+network.depth=3", "network.depth"),
        ("network.width=0", "0"),
        ("trainer.steps=5", "too few for 7 stages"),
    ],
)
def test_wrong_values_get_one_sentence(tmp_path, run_command, word, quoted):
    code, _, errors = run_command("compare_on_mixture", f"folder={tmp_path / 'runs'}", word)
    assert code == 2
    assert quoted in errors
    assert errors.count("\n") == 1
    assert not list((tmp_path / "runs").rglob("*.safetensors"))
