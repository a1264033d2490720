"""How fast a policy answers: the files `results/latency_{cpu|gpu}.json`, and the table of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortcut_policy.config import read_json

__all__ = ["SpeedResult", "SpeedRow", "read_speed_result", "speed_table"]


@dataclass(frozen=True)
class SpeedRow:
    """One way to answer one robot.

    Attributes:
        sampler: "shortcut", "ddim" or "ddpm".
        steps: network evaluations.
        mode, precision: as `CompiledPolicy` has them.
        calls: that were timed.
        latency_ms_p50, latency_ms_p99, latency_ms_max: from observations in host memory to actions in host memory.
        action_difference: root mean square of the difference to eager fp32, in the data's units.
    """

    sampler: str
    steps: int
    mode: str
    precision: str
    batch: int
    calls: int
    latency_ms_p50: float
    latency_ms_p99: float
    latency_ms_max: float
    action_difference: float


@dataclass(frozen=True)
class SpeedFloor:
    """What one step cannot be faster than, by precision of the weights.

    Attributes:
        weight_bytes, read_ms: of the weights, and the time to read as many bytes once.
        kernels, kernel_ms: started by an answer in one step, and the time of an empty one.
    """

    weight_bytes: int
    read_ms: float
    kernels: int
    kernel_ms: float

    @property
    def milliseconds(self) -> float:
        """The larger of the two."""
        return max(self.read_ms, self.kernels * self.kernel_ms)


@dataclass(frozen=True)
class SpeedResult:
    """A file of `results/`.

    Attributes:
        network: its name in `configs/network/`.
        parameters: of encoder and head.
        observations: shape of a single observation of every key.
        parts_ms: where the time of one eager step goes, medians.
        floors: mode -> its floor.
    """

    name: str
    network: str
    parameters: int
    observations: Mapping[str, tuple[int, ...]]
    command: str
    commit: str
    hardware: str
    versions: Mapping[str, Any]
    rows: tuple[SpeedRow, ...]
    parts_ms: Mapping[str, float]
    floors: Mapping[str, SpeedFloor]


def read_speed_result(path: Path) -> SpeedResult:
    """Read such a file.

    Raises:
        ValueError: it is no JSON or does not follow the schema.
    """
    return read_json(SpeedResult, path)


def speed_table(result: SpeedResult) -> str:
    """Latencies, how much longer DDPM takes with all its steps, where the time goes, and the floor."""
    slowest = max(result.rows, key=lambda row: (row.sampler == "ddpm", row.steps))
    lines = [
        f"| sampler | evaluations | mode | weights | p50 | p99 | max | {slowest.sampler}-{slowest.steps} takes "
        "| actions differ |",
        "|:---|---:|:---|:---|---:|---:|---:|---:|---:|",
    ]
    for row in result.rows:
        times = [f"{value:.2f} ms" for value in (row.latency_ms_p50, row.latency_ms_p99, row.latency_ms_max)]
        ratio = f"{slowest.latency_ms_p50 / row.latency_ms_p50:.1f}x"
        differ = f"{row.action_difference:.0e}" if row.action_difference else ""
        lines.append(f"| {' | '.join([row.sampler, str(row.steps), row.mode, row.precision, *times, ratio, differ])} |")
    parts = ", ".join(f"{name} {value:.2f} ms" for name, value in result.parts_ms.items())
    shapes = ", ".join(f"{key} {'x'.join(map(str, shape))}" for key, shape in result.observations.items())
    floors = "; ".join(_floor(mode, floor) for mode, floor in result.floors.items())
    lines += [
        "",
        f"`{result.network}` ({result.parameters / 1e6:.1f} M parameters; {shapes}), one robot, {result.hardware}; "
        "from observation to chunk, both in host memory. *Actions differ*: from eager fp32 (rms, in the data's units). "
        f"One eager step: {parts}. Floors, with these kernels and weights: {floors}. `{result.command}`",
    ]
    return "\n".join(lines)


def _floor(mode: str, floor: SpeedFloor) -> str:
    parts = [f"{floor.weight_bytes / 1e6:.1f} MB of weights read in {floor.read_ms:.2f} ms"]
    if floor.kernels:
        parts.append(f"{floor.kernels} kernels of {1e3 * floor.kernel_ms:.1f} us")
    return f"{floor.milliseconds:.2f} ms ({mode}: {', '.join(parts)})"
