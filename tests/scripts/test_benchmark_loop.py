import json
import os
import runpy
import signal
from pathlib import Path

import numpy as np
import pytest
from small_policy import small_policy

from shortcut_policy.config import to_mapping
from shortcut_policy.loop_results import LoopResult, LoopRow, loop_table, read_loop_result
from shortcut_policy.realtime.loop_config import LoopConfig
from shortcut_policy.realtime.loop_report import LoopReport, Quantiles

SCRIPTS = Path(__file__).parents[2] / "scripts"
TINY = ("network.widths=[8]", "mode=eager", "device=cpu")


@pytest.mark.parametrize("sampler", ["thread", "process"])
def test_the_loop_runs_at_every_rate(tmp_path, run_command, sampler):
    path = tmp_path / "loop_cpu.json"
    words = (*TINY, f"sampler={sampler}", "rates_hz=[10,20]", "seconds=1", "action_steps=2", f"result={path}")
    code, out, errors = run_command("benchmark_loop", *words)
    assert code == 0, errors
    result = read_loop_result(path)
    assert loop_table(result) in out
    assert (result.sampler, result.action_steps, [row.rate_hz for row in result.rows]) == (sampler, 2, [10, 20])
    for row, ticks in zip(result.rows, (10, 20), strict=True):
        assert row.report.ended == "complete"
        assert row.report.ticks + row.report.skipped_ticks == ticks
        assert 1 <= row.report.chunks <= ticks / 2
    code, _, errors = run_command("benchmark_loop", *words)
    assert code == 2
    assert "overwrite=true" in errors


def test_a_rate_that_is_interrupted_is_left_out_and_ends_the_benchmark(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script, policy, calls = runpy.run_path(str(SCRIPTS / "benchmark_loop.py")), small_policy(), []

    def sample(history):
        if len(history["position"]) == 3:  # the second run
            calls.append(history)
            if len(calls) == 6:  # later than the first chunk and its warm-up
                os.kill(os.getpid(), signal.SIGTERM)
        return np.zeros((8, 2), np.float32)

    configs = [LoopConfig(50, action_steps=1, observation_steps=steps) for steps in (2, 3, 2)]
    rows, complete = script["run_all"](configs, 1.0, policy, sample)
    assert not complete
    assert [(row.rate_hz, row.report.ended) for row in rows] == [(50, "complete")]


def test_the_table_stands_in_the_pages(tmp_path):
    report = LoopReport(9, 0, 1.0, 8.0, Quantiles(0.1, 0.2, 0.3), None, 29_998, 1, 0, 0, 0, 0, "complete")
    result = LoopResult(
        name="loop",
        network="unet_tiny",
        parameters=1_000_000,
        observations={"state": (6,)},
        evaluations=1,
        mode="eager",
        precision="fp32",
        sampler="thread",
        action_steps=1,
        deadline_ticks=2,
        command="command",
        commit="abc",
        hardware="CPU",
        versions={},
        rows=(LoopRow(500.0, report),),
    )
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "loop.json").write_text(json.dumps(to_mapping(result)))
    script = runpy.run_path(str(SCRIPTS / "update_readme.py"))
    page = script["render"]("<!-- loop: loop -->\nold\n<!-- end -->", tmp_path)
    assert "| 500 Hz | 9 | 0 | 29,998 | 1 | 0.33 | 0.10, 0.20, 0.30 ms |  |" in page
    assert "1 network evaluation," in page
    assert "asked for then or when that is there, and *missed* if it is not there 2 ticks after" in page


@pytest.mark.parametrize(
    ("chunks", "refused", "misses", "share"),
    [(9_999, 1, 1, 1.0), (4, 0, 1, 2500.0), (3, 0, 4, 10_000.0), (0, 0, 0, None)],
)
def test_misses_are_for_ten_thousand_chunks_that_came(chunks, refused, misses, share):
    report = LoopReport(9, 0, 1.0, 8.0, None, None, chunks, misses, refused, 0, 0, 0, "complete")
    assert LoopRow(8.0, report).misses_per_10000 == share


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (["rates_hz=[]"], "rates_hz must be positive"),
        (["rates_hz=[100,-5]"], "-5"),
        (["seconds=0.001"], "seconds=0.001 at 100.0 Hz are less than two actions"),
        (["num_steps=0"], "num_steps must be positive, got 0"),
        (["sampler=fork"], "fork"),
        (["mode=cuda_graph"], "needs a GPU"),
        (["action_steps=30", "seconds=1"], "action_steps=30"),
        (["deadline_ticks=0"], "deadline_ticks must be at least 1, got 0"),
        (["checkpoint=nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_sentence(run_command, words, quoted):
    code, _, errors = run_command("benchmark_loop", *TINY, *words)
    assert code == 2
    assert quoted in errors
    assert errors.count("\n") == 1, errors
