"""Plots as PNG; matplotlib is imported when one is drawn."""

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shortcut_policy.result_tables import policy_label, policy_name, usual_hardware
from shortcut_policy.results import Result, Row

if TYPE_CHECKING:
    from shortcut_policy.diversity import HandPath
    from shortcut_policy.latency_results import LatencyResult
    from shortcut_policy.mixture_results import MixtureResult

SOURCE_KEY = "Source-SHA256"


def sources_text(sources: Sequence[Path]) -> str:
    """What a PNG says of the results files that it was drawn from, so that a test sees a stale picture."""
    return " ".join(f"{path.name}:{hashlib.sha256(path.read_bytes()).hexdigest()}" for path in sources)


def score_and_latency(result: Result, sources: Sequence[Path] = ()) -> bytes:
    """Score, success rate and latency of one policy against the number of sampling steps.

    Args:
        result: what is drawn.
        sources: the results file, to be written into the PNG.

    Raises:
        ImportError: matplotlib is missing.
    """
    figure = _figure((9, 3.6))
    left, right = figure.subplots(1, 2)
    steps = [row.steps for row in result.rows]
    mean = [row.mean for row in result.rows]
    spread = [[row.mean - row.low for row in result.rows], [row.high - row.mean for row in result.rows]]
    left.errorbar(steps, mean, yerr=spread, marker="o", capsize=3, label=f"score ({result.evaluation.metric})")
    left.plot(steps, [row.success for row in result.rows], marker="s", linestyle="--", label="success rate")
    left.set(ylabel="score, success rate", ylim=(0, 1.05))
    left.legend(loc="best")
    right.plot(steps, [row.latency_ms_p50 for row in result.rows], marker="o", label="p50")
    right.plot(steps, [row.latency_ms_p99 for row in result.rows], marker="^", linestyle="--", label="p99")
    right.set(ylabel="latency per chunk [ms]", yscale="log")
    right.legend(loc="best")
    for axes in (left, right):
        _steps_axis(axes, result.rows)
    figure.suptitle(f"{result.task}, {policy_name(result.objective)}, {result.network}")
    return _png(figure, sources)


def comparison(
    named: Mapping[str, Result], sources: Sequence[Path] = (), figure_of_merit: Literal["success", "score"] = "success"
) -> bytes:
    """Success rate or score against the number of sampling steps, and against the latency, of several policies.

    Args:
        named: label -> result, of one task or of several: then a task has its colour and a policy its line style, where
            that tells them apart.
        figure_of_merit: what is drawn.
        sources: the results files, to be written into the PNG.

    Raises:
        ImportError: matplotlib is missing.
    """
    figure = _figure((11.5, 4))
    left, right = figure.subplots(1, 2, sharey=True)
    tasks = list(dict.fromkeys(result.task for result in named.values()))
    policies = list(dict.fromkeys(policy_label(result) for result in named.values()))
    kinds = {(result.task, policy_label(result)) for result in named.values()}
    by_task = len(tasks) > 1 and len(kinds) == len(named)
    hardware = usual_hardware([result.hardware for result in named.values()])
    for index, (name, result) in enumerate(named.items()):
        rows = sorted(result.rows, key=lambda row: row.steps)
        if figure_of_merit == "success":
            drawn = [(row.success, row.success - row.success_low, row.success_high - row.success) for row in rows]
        else:
            drawn = [(row.mean, row.mean - row.low, row.high - row.mean) for row in rows]
        merit, *spread = zip(*drawn, strict=True)
        line = policies.index(policy_label(result)) if by_task else index
        style = {
            "color": _color(tasks.index(result.task) if by_task else index),
            "marker": "osD^v"[line % 5],
            "linestyle": ("-", "--", ":", "-.")[line % 4],
            "label": name,
            "capsize": 3,
        }
        left.errorbar([row.steps for row in rows], merit, yerr=spread, **style)
        if result.hardware == hardware:
            right.errorbar([row.latency_ms_p50 for row in rows], merit, yerr=spread, **style)
    _steps_axis(left, [row for result in named.values() for row in result.rows])
    left.set(ylabel="success rate" if figure_of_merit == "success" else "score", ylim=(-0.03, 1.05))
    right.set(xlabel="latency per chunk, one robot [ms, median]", xscale="log")
    _plain_log_axis(right.xaxis)
    right.grid(alpha=0.3)
    lines = left.get_legend_handles_labels()  # of all: the latencies of other hardware are left out on the right
    right.legend(*lines, loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize="small")  # beside: curves run anywhere
    return _png(figure, sources)


def score_against_latency(result: "LatencyResult", sources: Sequence[Path] = ()) -> bytes:
    """Score against the latency that rollouts were given, a line for every number of sampling steps.

    A star on a line, or beyond its end, is the latency which that number of steps has on the hardware of the result.

    Args:
        result: what is drawn.
        sources: the results file, to be written into the PNG.

    Raises:
        ImportError: matplotlib is missing.
    """
    figure = _figure((7, 4))
    axes = figure.subplots()
    for index, steps in enumerate(sorted({row.steps for row in result.rows})):
        rows = sorted((row for row in result.rows if row.steps == steps), key=lambda row: row.latency_ms)
        label = f"{steps} step{'s' if steps > 1 else ''}"
        for measured, marker, size in ((False, "os^Dv"[index % 5], 5), (True, "*", 15)):
            drawn = [row for row in rows if row.measured == measured]
            if drawn:
                axes.errorbar(
                    [row.latency_ms for row in drawn],
                    [row.mean for row in drawn],
                    yerr=[[row.mean - row.low for row in drawn], [row.high - row.mean for row in drawn]],
                    color=f"C{index}",
                    marker=marker,
                    markersize=size,
                    linestyle="" if measured else "-",
                    capsize=3,
                    label=f"{label}: its own latency, {drawn[0].latency_ms:.0f} ms" if measured else label,
                )
    axes.set(xlabel="latency from observation to chunk [ms]", ylabel=f"score ({result.evaluation.metric})")
    axes.set(ylim=(0, 1.05), title=f"{result.task} at {result.rate_hz:g} Hz, {policy_name(result.objective)}")
    axes.grid(alpha=0.3)
    axes.legend(loc="best", fontsize="small")
    return _png(figure, sources)


def training_curves(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> bytes:
    """Losses on training batches, and held-out action errors, against the number of updates.

    Args:
        runs: name -> lines of metrics.jsonl.

    Raises:
        ImportError: matplotlib is missing.
    """
    figure = _figure((10, 3.8))
    left, right = figure.subplots(1, 2)
    for index, (name, lines) in enumerate(runs.items()):
        for style, key, label in (("-", "train/flow_loss", "flow"), ("--", "train/bootstrap_loss", "bootstrap")):
            _curve(left, lines, key, color=f"C{index}", linestyle=style, label=f"{name}: {label}")
        errors = sorted(
            {key for line in lines for key in line if key.startswith("valid/action_error_")},
            key=lambda key: int(key.split("_")[-2]),
        )
        for style, key in zip(("-", "--", ":", "-."), errors, strict=False):
            steps = int(key.split("_")[-2])
            label = f"{name}: {steps} step{'s' if steps > 1 else ''}"
            _curve(right, lines, key, color=f"C{index}", linestyle=style, marker=".", label=label)
    left.set(xlabel="updates", ylabel="training loss", yscale="log")
    right.set(xlabel="updates", ylabel="held-out action error", ylim=(0, None))
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend(loc="best", fontsize="small")
    return _png(figure)


def demonstrations(paths: Sequence["HandPath"]) -> bytes:
    """Where the hands of demonstrations go, seen from above and from the side, and how they turn.

    Raises:
        ImportError: matplotlib is missing.
    """
    figure = _figure((11, 3.6))
    above, side, turn = figure.subplots(1, 3)
    ways = sorted({path.way for path in paths})
    for path in paths:
        style = {"color": f"C{ways.index(path.way)}", "alpha": 0.45, "linewidth": 1.0}
        x, y, z = 100 * path.position.T
        above.plot(y, x, **style)
        side.plot(y, z, **style)
        turn.plot(np.linspace(0, 1, len(path.yaw)), np.degrees(path.yaw - path.yaw[0]), **style)
    above.set(xlabel="y [cm]", ylabel="x [cm]", title="seen from above", aspect="equal")
    side.set(xlabel="y [cm]", ylabel="z [cm]", title="seen from the front", aspect="equal")
    turn.set(xlabel="share of the demonstration", ylabel="turn of the hand [degrees]", title="turned by")
    for axes in (above, side, turn):
        axes.grid(alpha=0.3)
    for index, way in enumerate(ways):
        turn.plot([], [], color=f"C{index}", label=way.replace("_", " "))
    turn.legend(loc="best", fontsize="small")
    return _png(figure)


def mixture_samples(
    results: Sequence["MixtureResult"], counts: Sequence[int] = (), sources: Sequence[Path] = ()
) -> bytes:
    """Samples of a mixture of Gaussians: a column for every objective, a row for every number of steps.

    Args:
        results: one for every objective.
        counts: numbers of steps that are drawn; by default all.
        sources: the results files, to be written into the PNG.

    Raises:
        ImportError: matplotlib is missing.
    """
    counts = counts or [row.steps for row in results[0].rows]
    figure = _figure((1.25 * len(results), 1.3 * len(counts) + 0.5))
    grid = figure.subplots(len(counts), len(results), squeeze=False)
    for column, result in enumerate(results):
        rows = {row.steps: row for row in result.rows}
        for axes, steps in zip(grid[:, column], counts, strict=True):
            axes.scatter(*np.array(rows[steps].samples).T, s=1.5, linewidths=0, color="C0")
            axes.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), xticks=[], yticks=[], aspect="equal")
            axes.set_title(f"{1000 * rows[steps].mean:.1f}", fontsize=7, pad=2)
            if column == 0:
                axes.set_ylabel(f"{steps} step{'s' if steps > 1 else ''}", fontsize=9)
        grid[-1, column].set_xlabel(policy_name(result.objective).replace(" ", "\n"), fontsize=8)
    return _png(figure, sources)


def image_samples(
    grids: Mapping[str, Mapping[int, np.ndarray]],
    titles: Mapping[str, Mapping[int, str]],
    sources: Sequence[Path] = (),
) -> bytes:
    """Samples of image generators: a row for every objective, a column for every number of steps.

    Args:
        grids: objective -> number of steps -> pixels (H, W, 3) uint8.
        titles: likewise, what stands above each.
        sources: the results files, to be written into the PNG.

    Raises:
        ImportError: matplotlib is missing.
    """
    counts = list(next(iter(grids.values())))
    figure = _figure((2.6 * len(counts) + 0.4, 2.8 * len(grids) + 0.3))
    axes = figure.subplots(len(grids), len(counts), squeeze=False)
    for row, (name, by_steps) in enumerate(grids.items()):
        for column, steps in enumerate(counts):
            place = axes[row, column]
            place.imshow(by_steps[steps], interpolation="nearest")
            place.set(xticks=[], yticks=[])
            place.set_title(titles[name][steps], fontsize=8, pad=3)
            if column == 0:
                place.set_ylabel(name.replace(" ", "\n"), fontsize=9)
            if row == len(grids) - 1:
                place.set_xlabel(f"{steps} step{'s' if steps > 1 else ''}", fontsize=9)
    return _png(figure, sources)


def _figure(size: tuple[float, float]) -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("plots need the extra 'report': pip install -e '.[report]'") from error
    return Figure(figsize=size, layout="constrained")


def _color(index: int) -> str:
    """Matplotlib's ten colours, and four more for those who compare all objectives."""
    return f"C{index}" if index < 10 else ("black", "navy", "darkgoldenrod", "deeppink")[index % 10 % 4]


def _steps_axis(axes: Any, rows: Sequence[Row]) -> None:
    steps = sorted({row.steps for row in rows})
    axes.set_xscale("log", base=2)
    axes.set_xticks(steps, [str(n) for n in steps])
    axes.set_xlabel("sampling steps (network evaluations)")
    axes.grid(alpha=0.3)


def _plain_log_axis(axis: Any) -> None:
    """Ticks at 1, 2, 5, 10, ..., written as such."""
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(ScalarFormatter())
    axis.set_minor_formatter(NullFormatter())


def _curve(axes: Any, lines: Sequence[Mapping[str, float]], key: str, **style: object) -> None:
    points = [(line["step"], line[key]) for line in lines if key in line]
    if points:
        axes.plot(*zip(*points, strict=True), **style)


def _png(figure: Any, sources: Sequence[Path] = ()) -> bytes:
    content = io.BytesIO()
    metadata = {SOURCE_KEY: sources_text(sources)} if sources else {}
    figure.savefig(content, format="png", dpi=150, metadata={**metadata, "Software": None})
    return content.getvalue()
