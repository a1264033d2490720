"""The evaluation with latency, and the loop of the README, on a policy that was hardly trained."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from test_train_policy import TINY

from shortcut_policy.latency_results import read_latency_result
from shortcut_policy.realtime import delayed_horizon
from shortcut_policy.results import read_result

pytest.importorskip("gym_pusht")
pytest.importorskip("matplotlib")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run_folder(tmp_path, demonstrations, run_command):
    output = tmp_path / "run"
    words = [f"data.path={demonstrations}", "trainer.steps=4", "environment.options.max_steps=12", *TINY]
    assert run_command("train_policy", *words, f"output={output}")[0] == 0
    return output


@pytest.fixture
def queues(monkeypatch):
    """The queues that are made, with their arguments and all actions: such a policy's scores tell little."""
    made = []

    class Recorded(delayed_horizon.DelayedHorizon):
        def __init__(self, *arguments, ensembling, **options):
            super().__init__(*arguments, ensembling=ensembling, **options)
            self.arguments, self.actions = (*arguments, ensembling), []
            made.append(self)

        def act(self, observation, sample):
            self.actions.append(super().act(observation, sample))
            return self.actions[-1]

    monkeypatch.setattr(delayed_horizon, "DelayedHorizon", Recorded)
    return made


def test_rows_table_and_plot(tmp_path, run_folder, run_command, queues):
    common = (f"checkpoint={run_folder}", "steps=[1,3]", "episodes=3", "latency_calls=2", "device=cpu")
    copy = tmp_path / "results" / "pusht_latency.json"
    code, out, errors = run_command("eval_latency", *common, "latency_ms=[250,0,300]", f"result={copy}")
    assert code == 0, errors
    result = read_latency_result(copy)
    assert read_latency_result(run_folder / "latency" / "result.json") == result
    assert (result.name, result.rate_hz, result.action_steps) == ("pusht_latency", 10, 8)
    given = [row for row in result.rows if not row.measured]
    cases = [(steps, latency, ticks) for steps in (1, 3) for latency, ticks in ((0, 0), (250, 3), (300, 3))]
    assert [(row.steps, row.latency_ms, row.ticks) for row in given] == cases
    own = [row for row in result.rows if row.measured]
    assert [row.steps for row in own] == [1, 3]
    assert all(row.latency_ms == pytest.approx(row.latency_ms_p50) and row.ticks >= 1 for row in own)
    assert "| 250 ms | 3 |" in out
    assert (run_folder / "latency" / "score_against_latency.png").stat().st_size > 10_000

    once = [(2, 8, ticks, None) for row in own for ticks in sorted({0, 3, row.ticks})]
    assert [queue.arguments for queue in queues] == once, "what comes to as many ticks is rolled out once"
    prompt, late = (np.stack(next(q for q in queues if q.arguments[2] == ticks).actions) for ticks in (0, 3))
    assert np.array_equal(prompt[:8], late[:8])
    assert not np.array_equal(prompt[8:11], late[8:11])

    # no latency is the ordinary evaluation
    code, _, errors = run_command("eval_policy", *common, "videos=0")
    assert code == 0, errors
    ordinary = read_result(run_folder / "evaluation" / "result.json")
    assert [row.scores for row in given[::3]] == [row.scores for row in ordinary.rows]

    code, _, errors = run_command("eval_latency", *common, f"result={copy}")
    assert code == 2
    assert "overwrite=true" in errors
    words = ("steps=[1]", "latency_ms=[100]", "measured=false", "action_steps=1", "ensembling=0.01", "rate_hz=20")
    code, out, errors = run_command("eval_latency", *common, *words, f"output={tmp_path / 'ensemble'}")
    assert code == 0, errors
    assert "| 100 ms | 2 |" in out
    assert "temporal ensembling (m = 0.01)" in out
    assert queues[-1].arguments == (2, 1, 2, 0.01)
    code, _, errors = run_command("eval_latency", *common, "action_steps=17", "overwrite=true")
    assert code == 2
    assert "action_steps=17 cannot be executed: the policy's chunks hold 16 actions" in errors


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (["checkpoint=nowhere"], "nowhere"),
        (["latency_ms=[-1]"], "latency_ms must be 0 or more and finite, got -1"),
        (["latency_ms=[]", "measured=false"], "latency_ms=[] with measured=false"),
        (["steps=[0]"], "[0]"),
        (["rate_hz=0"], "rate_hz must be positive, got 0"),
    ],
)
def test_wrong_values_get_one_sentence(run_command, words, quoted):
    code, _, errors = run_command("eval_latency", "checkpoint=somewhere", *words)
    assert code == 2
    assert quoted in errors
    assert errors.count("\n") == 1


def test_the_loop_of_the_readme_runs(run_folder, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["realtime_loop.py", str(run_folder / "checkpoints" / "last"), "0.8"])
    loop = runpy.run_path(str(ROOT / "examples" / "realtime_loop.py"))["loop"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["actions", "jitter", "latency", "chunks", "safety", "score"]
    report = loop.report()
    assert report.ended == "complete"
    assert report.ticks + report.skipped_ticks == 8
