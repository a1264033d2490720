import pytest

from shortcut_policy.loop_results import LoopRow, loop_table, read_loop_result
from shortcut_policy.realtime.loop_report import LoopReport

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
        assert row.report.seconds == pytest.approx((ticks - 1) / row.rate_hz, abs=0.5)
        assert 1 <= row.report.chunks <= ticks / 2
        assert row.report.safe_actions == 0
    code, _, errors = run_command("benchmark_loop", *words)
    assert code == 2
    assert "overwrite=true" in errors


@pytest.mark.parametrize(
    ("chunks", "refused", "misses", "share"),
    [(9_999, 1, 1, 1.0), (4, 0, 1, 2500.0), (3, 0, 4, 10_000.0), (0, 0, 0, None)],
)
def test_misses_are_counted_by_what_was_asked_for(chunks, refused, misses, share):
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
        (["checkpoint=nowhere"], "nowhere"),
    ],
)
def test_mistakes_are_one_sentence(run_command, words, quoted):
    code, _, errors = run_command("benchmark_loop", *TINY, *words)
    assert code == 2
    assert quoted in errors
    assert errors.count("\n") == 1, errors
