from shortcut_policy.realtime.loop_report import DurationLog, LoopReport, Quantiles


def test_quantiles_are_of_the_latest_durations_and_the_largest_is_of_all():
    log = DurationLog(kept=3)
    assert log.quantiles() is None
    for seconds in (9.0, 0.001, 0.003, 0.002):
        log.add(seconds)
    quantiles = log.quantiles()
    assert (quantiles.p50, quantiles.max) == (2, 9000)
    assert 2.9 < quantiles.p99 < 3


def test_a_report_can_be_read_and_says_what_was_not_measured():
    report = LoopReport(5, 1, 0.5, 8.0, Quantiles(0.1, 0.2, 0.3), None, 2, 1, 0, 3, 4, 6, "stopped")
    assert str(report).splitlines() == [
        "actions  5 in 0.50 s = 8.00 Hz, 1 ticks skipped: stopped",
        "jitter   p50 0.10, p99 0.20, max 0.30 ms",
        "latency  not measured",
        "chunks   2, 1 missed, 0 refused, 3 stale actions dropped",
        "safety   4 safe actions, 6 clipped",
    ]
