"""The benchmark of the rollouts, with a few steps."""

import json

import numpy as np
import pytest

pytest.importorskip("gym_pusht")

WORDS = ("task=pusht", "workers=1", "num_envs=2", "steps=4", "turns=2")


def test_both_are_measured_in_turns(tmp_path, run_command):
    target = tmp_path / "rollouts.json"
    code, out, errors = run_command("benchmark_rollouts", *WORDS, f"result={target}")
    assert code == 0, errors
    document = json.loads(target.read_text())
    assert document["name"] == "rollouts"
    assert (document["environment"], document["workers"], document["num_envs"]) == ("pusht", 1, 2)
    assert len(document["ratios"]) == 2
    assert document["ratio"] == pytest.approx(np.median(document["ratios"]), abs=1e-4)
    bare, rollouts = document["steps_per_second_per_core_p50"].values()
    assert 20 < bare < 20_000
    assert 20 < rollouts < 20_000
    assert f"ratio {document['ratio']:.3f}" in out

    code, _, errors = run_command("benchmark_rollouts", *WORDS, f"result={target}")
    assert code == 2
    assert "overwrite=true" in errors


@pytest.mark.parametrize(
    ("word", "message"), [("num_envs=3", "num_envs=3"), ("turns=0", "turns"), ("steps=0", "steps")]
)
def test_wrong_values_get_one_sentence(run_command, word, message):
    code, _, errors = run_command("benchmark_rollouts", *WORDS, "workers=2", word)
    assert code == 2
    assert message in errors
    assert errors.count("\n") == 1
