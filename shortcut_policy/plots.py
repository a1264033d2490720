"""Plots of results; matplotlib is imported when one is drawn."""

import hashlib
from pathlib import Path

from shortcut_policy.results import Result

SOURCE_KEY = "Source-SHA256"


def score_and_latency(result: Result, path: Path, source: Path) -> None:
    """Score and latency against the number of sampling steps, as a PNG.

    Args:
        result: what is drawn.
        path: of the PNG.
        source: the results file; its SHA-256 is written into the PNG, so that a test sees a stale picture.

    Raises:
        ImportError: matplotlib is missing.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need the extra 'report': pip install -e '.[report]'") from error

    steps = [row.steps for row in result.rows]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    mean = [row.mean for row in result.rows]
    below = [row.mean - row.low for row in result.rows]
    above = [row.high - row.mean for row in result.rows]
    left.errorbar(steps, mean, yerr=[below, above], marker="o", capsize=3, label=f"score ({result.evaluation.metric})")
    left.plot(steps, [row.success for row in result.rows], marker="s", linestyle="--", label="success rate")
    left.set(ylabel="score, success rate", ylim=(0, 1.05))
    left.legend(loc="best")
    right.plot(steps, [row.latency_ms_p50 for row in result.rows], marker="o", label="p50")
    right.plot(steps, [row.latency_ms_p99 for row in result.rows], marker="^", linestyle="--", label="p99")
    right.set(ylabel="latency per chunk [ms]", yscale="log")
    right.legend(loc="best")
    for axes in (left, right):
        axes.set_xscale("log", base=2)
        axes.set_xticks(steps, [str(n) for n in steps])
        axes.set_xlabel("sampling steps (network evaluations)")
        axes.grid(alpha=0.3)
    figure.suptitle(f"{result.task}, {result.objective}, {result.network}")
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    figure.savefig(path, dpi=150, metadata={SOURCE_KEY: digest, "Software": None})
