"""How well a control loop keeps its clock while a policy samples: the files `results/loop_{cpu|gpu}.json`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortcut_policy.config import read_json
from shortcut_policy.realtime.loop_report import LoopReport, Quantiles

__all__ = ["LoopResult", "LoopRow", "loop_table", "read_loop_result"]


@dataclass(frozen=True)
class LoopRow:
    """A run at one rate.

    Attributes:
        rate_hz: that was asked for.
        report: of the loop.
    """

    rate_hz: float
    report: LoopReport

    @property
    def misses_per_10000(self) -> float | None:
        """Chunks that were not there when they were due, for 10,000 that came, and 10,000 at most; None for none."""
        # the last one may have been missed, and have come after the end
        came = max(self.report.chunks + self.report.refused_chunks, self.report.misses)
        return 10_000 * self.report.misses / came if came else None


@dataclass(frozen=True)
class LoopResult:
    """A file of `results/`.

    Attributes:
        network: its name in `configs/network/`, or the checkpoint.
        parameters: of encoder and head.
        observations: shape of a single observation of every key.
        evaluations: of the network, for a chunk.
        mode, precision: of the policy, as `CompiledPolicy` has them.
        sampler: where it samples: in a "thread" of the loop's process, or in a "process" of its own.
        action_steps, deadline_ticks: of the `LoopConfig`.
        rows: by rate.
    """

    name: str
    network: str
    parameters: int
    observations: Mapping[str, tuple[int, ...]]
    evaluations: int
    mode: str
    precision: str
    sampler: str
    action_steps: int
    deadline_ticks: int
    command: str
    commit: str
    hardware: str
    versions: Mapping[str, Any]
    rows: tuple[LoopRow, ...]


def read_loop_result(path: Path) -> LoopResult:
    """Read such a file.

    Raises:
        ValueError: it is no JSON or does not follow the schema.
    """
    return read_json(LoopResult, path)


def loop_table(result: LoopResult) -> str:
    """A row for every rate: actions, chunks, misses, jitter and latency."""
    lines = [
        "| rate | actions | skipped ticks | chunks | missed | of 10,000 | jitter p50, p99, max "
        "| latency p50, p99, max |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for row in result.rows:
        report, share = row.report, row.misses_per_10000
        cells = [
            f"{row.rate_hz:g} Hz",
            f"{report.ticks:,}",
            f"{report.skipped_ticks:,}",
            f"{report.chunks:,}",
            f"{report.misses:,}",
            "" if share is None else f"{share:,.0f}" if share >= 10 else f"{share:.2g}",
            _milliseconds(report.jitter_ms),
            _milliseconds(report.latency_ms),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    shapes = ", ".join(f"{key} {'x'.join(map(str, shape))}" for key, shape in result.observations.items())
    evaluations = f"{result.evaluations} network evaluation{'s' * (result.evaluations > 1)}"
    lines += [
        "",
        f"`{result.network}` ({result.parameters / 1e6:.1f} M parameters; {shapes}), {evaluations}, {result.mode}, "
        f"{result.precision}, sampled in a {result.sampler}; {result.hardware}. A chunk is wanted "
        f"{_ticks(result.action_steps)} after the last one was asked for, asked for then or when that is there, and "
        f"*missed* if it is not there {_ticks(result.deadline_ticks)} after it was wanted: the one behind a late one "
        f"is mostly late too. *Jitter*: from the tick to its action. `{result.command}`",
    ]
    return "\n".join(lines)


def _ticks(count: int) -> str:
    return "one tick" if count == 1 else f"{count} ticks"


def _milliseconds(quantiles: Quantiles | None) -> str:
    return "" if quantiles is None else f"{quantiles.p50:.2f}, {quantiles.p99:.2f}, {quantiles.max:.2f} ms"
