"""What a latency costs: the files `results/{task}_latency.json`, and the table of them."""

from dataclasses import dataclass
from pathlib import Path

from shortcut_policy.config import read_json
from shortcut_policy.result_tables import policy_name
from shortcut_policy.results import Result, Row

__all__ = ["LatencyResult", "LatencyRow", "latency_table", "make_latency_row", "read_latency_result"]


@dataclass(frozen=True)
class LatencyRow(Row):
    """The figures for one number of steps and one latency.

    Attributes:
        latency_ms: from an observation to the chunk that it leads to, in simulated time.
        ticks: of the environment that these are, rounded up.
        measured: whether this is the latency (median) of this number of steps on the hardware of the result; other
            latencies are given, and the same for all.
    """

    latency_ms: float = 0.0
    ticks: int = 0
    measured: bool = False


@dataclass(frozen=True)
class LatencyResult(Result):
    """A file of `results/`.

    Attributes:
        rate_hz: ticks of the environment in a second of simulated time.
        action_steps: ticks from one observation that a chunk is computed from to the next, or more where it must wait.
        ensembling: m of temporal ensembling; None for receding horizon.
    """

    rows: tuple[LatencyRow, ...]
    rate_hz: float
    action_steps: int
    ensembling: float | None


def make_latency_row(row: Row, latency_ms: float, ticks: int, measured: bool) -> LatencyRow:
    """The figures of rollouts with a latency."""
    return LatencyRow(**vars(row), latency_ms=round(latency_ms, 4), ticks=ticks, measured=measured)


def read_latency_result(path: Path) -> LatencyResult:
    """Read such a file.

    Raises:
        ValueError: it is no JSON or does not follow the schema.
    """
    return read_json(LatencyResult, path)


def latency_table(result: LatencyResult) -> str:
    """Score by latency, and number of steps; at the end, every number of steps with the latency that it has."""
    counts = sorted({row.steps for row in result.rows})
    given = {(row.latency_ms, row.steps): row for row in result.rows if not row.measured}
    own = {row.steps: row for row in result.rows if row.measured}
    lines = [
        f"| latency | ticks | {' | '.join(f'{n} step' + 's' * (n > 1) for n in counts)} |",
        f"|---:|---:|{'---:|' * len(counts)}",
    ]
    for latency in sorted({latency for latency, _ in given}):
        rows = [given.get((latency, steps)) for steps in counts]
        ticks = next(row.ticks for row in rows if row is not None)
        lines.append(f"| {latency:g} ms | {ticks} | {' | '.join(map(_cell, rows))} |")
    if own:
        cells = [f"{_cell(own[n])} at {own[n].latency_ms:.0f} ms" if n in own else "" for n in counts]
        lines.append(f"| its own | {', '.join(str(own[n].ticks) for n in counts if n in own)} | {' | '.join(cells)} |")
    training, evaluation = result.training, result.evaluation
    seeds = ", ".join(map(str, training.seeds))
    ensembling = "" if result.ensembling is None else f", temporal ensembling (m = {result.ensembling:g})"
    lines += [
        "",
        f"Score ({evaluation.metric}) with 95 % intervals: {result.task} at {result.rate_hz:g} Hz, "
        f"{policy_name(result.objective)}, `{result.network}`, {training.steps:,} updates{ensembling}; training seeds "
        f"{seeds}, {evaluation.episodes} episodes each from seed {evaluation.first_seed}. "
        "A chunk is used as many ticks after its observation as the latency makes, rounded up; until then the old one "
        "is followed, and past its end the last goal is held. The first chunk of an episode is awaited at rest. "
        f"*Its own*: median latency for one robot on {result.hardware}.",
    ]
    return "\n".join(lines)


def _cell(row: LatencyRow | None) -> str:
    return "" if row is None else f"**{row.mean:.3f}** [{row.low:.3f}, {row.high:.3f}]"
