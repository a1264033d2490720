"""The comparison of objectives: by one command, and spread over jobs."""

import json
from pathlib import Path

import pytest

pytest.importorskip("gym_pusht")
pytest.importorskip("matplotlib")

from shortcut_policy.results import read_result


def words(demonstrations, folder, objectives="[regression,consistency_distillation]", seeds="[0,1]"):
    return [
        "task=pusht",
        f"data.path={demonstrations}",
        "data.valid_fraction=0",
        "environment.options.max_steps=16",
        "network.widths=[8,16]",
        "trainer.batch_size=16",
        "trainer.steps=8",
        "trainer.progress=false",
        f"objectives={objectives}",
        f"seeds={seeds}",
        "steps=[1,2]",
        "episodes=2",
        "workers=0",
        "latency_calls=3",
        "device=cpu",
        f"folder={folder}",
    ]


def test_objectives_are_trained_alike_evaluated_and_collected(tmp_path, demonstrations, run_command):
    folder, results = tmp_path / "runs", tmp_path / "results"
    code, out, errors = run_command("compare_objectives", *words(demonstrations, folder), f"results={results}")
    assert code == 0, errors
    assert "| regression |" in out
    assert "| consistency distillation |" in out
    both = {path.stem: read_result(path) for path in results.iterdir()}
    assert both.keys() == {"pusht_comparison_regression", "pusht_comparison_consistency_distillation"}
    for name, result in both.items():
        assert result.name == name
        assert result.training.seeds == (0, 1)
        assert [row.steps for row in result.rows] == [1, 2]
        assert all(len(row.scores) == 2 and len(row.scores[0]) == 2 for row in result.rows)
    plain, distilled = both["pusht_comparison_regression"], both["pusht_comparison_consistency_distillation"]
    assert [row.nfe for row in plain.rows] == [1, 1]
    assert plain.training.evaluations_per_row == 1
    assert distilled.training.evaluations_per_row == 2, "4 updates of the flow, 4 of teacher, target and student"
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")

    # once more: nothing is done again; with other values: refused before anything is done
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    code, again, _ = run_command("compare_objectives", *words(demonstrations, folder), f"results={results}")
    assert code == 0
    assert again.count("done before") == 8
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*.safetensors")}
    other = [*words(demonstrations, folder), "trainer.steps=9"]
    code, _, errors = run_command("compare_objectives", *other)
    assert code == 2
    assert "holds another training (python scripts/train_policy.py" in errors
    code, _, errors = run_command("compare_objectives", *words(demonstrations, folder), "episodes=3")
    assert code == 2
    assert "is of steps [1, 2], 2 episodes from seed 100000" in errors
    alone = [*words(demonstrations, folder, seeds="[0]"), f"results={results}"]
    code, _, errors = run_command("compare_objectives", *alone)
    assert code == 2
    assert "is of another comparison: choose another results=, or say overwrite=true" in errors
    assert run_command("compare_objectives", *alone, "overwrite=true")[0] == 0
    assert read_result(results / "pusht_comparison_regression.json").training.seeds == (0,)


def test_jobs_of_a_multirun_are_collected(tmp_path, demonstrations, start_command, run_command):
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    folder, results = tmp_path / "runs", tmp_path / "results"
    sweep = words(demonstrations, folder, "[regression],[flow_matching]", "[0],[1]")
    launcher = [
        "hydra/launcher=submitit_local",
        "hydra.launcher.timeout_min=5",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
    ]
    process = start_command("scripts/compare_objectives.py", "--multirun", *sweep, *launcher)
    out, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == [
        f"{objective}_{seed}" for objective in ("flow_matching", "regression") for seed in (0, 1)
    ]
    code, out, errors = run_command("collect_results", f"folder={folder}", f"results={results}")
    assert code == 0, errors
    assert "| flow matching |" in out
    merged = read_result(results / "pusht_comparison_flow_matching.json")
    single = [read_result(folder / f"flow_matching_{seed}" / "evaluation" / "result.json") for seed in (0, 1)]
    assert merged.training.seeds == (0, 1)
    assert merged.rows[0].scores == single[0].rows[0].scores + single[1].rows[0].scores
    assert merged.rows[0].mean == pytest.approx((single[0].rows[0].mean + single[1].rows[0].mean) / 2, abs=1e-4)


def test_collecting_says_what_is_wrong(tmp_path, run_command):
    code, _, errors = run_command("collect_results", f"folder={tmp_path}")
    assert code == 2
    assert "holds no evaluated run" in errors


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        ("objectives=[shortcuts]", "'shortcuts': known are "),
        ("objectives=[]", "objectives=[]"),
        ("task=push", "task/push"),
        ("network=mlp", "network/mlp"),
        ("at_once=0", "0"),
        ("steps=[0]", "[0]"),
        ("episodes=0", "0"),
        ("objectives=[mean_flow]", "mean_flow differentiates the network in forward mode"),
        ("objectives=[progressive_distillation]", "progressive_distillation: 3 updates"),
    ],
)
def test_wrong_values_get_one_sentence(tmp_path, run_command, word, quoted):
    given = ["task=pusht", "objectives=[regression]", f"folder={tmp_path / 'runs'}", "trainer.steps=3"]
    given += ["trainer.compile=true"]
    kept = [w for w in given if w.partition("=")[0] != word.partition("=")[0]]
    code, _, errors = run_command("compare_objectives", *kept, word)
    assert code == 2
    assert quoted in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_damaged_result_is_named(tmp_path, run_command):
    path = Path(tmp_path / "regression_0" / "evaluation" / "result.json")
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"name": "x"}))
    code, _, errors = run_command("collect_results", f"folder={tmp_path}")
    assert code == 2
    assert "result.json" in errors
