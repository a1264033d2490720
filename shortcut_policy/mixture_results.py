"""How well objectives sample a mixture of Gaussians in few steps: their files in `results/`, and the table of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortcut_policy.config import read_json
from shortcut_policy.result_tables import policy_name

__all__ = ["MixtureResult", "MixtureRow", "mixture_table", "read_mixture_result"]


@dataclass(frozen=True)
class MixtureRow:
    """One number of steps.

    Attributes:
        steps, nfe: sampling steps, and the network evaluations that were made of them.
        mean: energy distance to fresh samples of the mixture, averaged over the training seeds.
        per_seed: of every training seed.
        samples: some of the first seed's samples, (n, 2), for the picture.
    """

    steps: int
    nfe: int
    mean: float
    per_seed: tuple[float, ...]
    samples: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class MixtureResult:
    """One objective; a file of `results/`.

    Attributes:
        objective, options: what was trained.
        mixture: of which.
        network: in words.
        updates, batch_size, seeds: of each training.
        evaluations: network evaluations for a row of the batch and an update, see `objective_cost`.
        seconds: of one training, on average.
        count: points of either kind in an energy distance.
        floor: what the energy distance comes to between fresh samples themselves: the largest of as many trials as
            there are seeds, without sign.
        rows: by number of steps.
    """

    name: str
    objective: str
    options: Mapping[str, Any]
    mixture: Mapping[str, Any]
    network: str
    command: str
    commit: str
    hardware: str
    versions: Mapping[str, str]
    updates: int
    batch_size: int
    seeds: tuple[int, ...]
    evaluations: float
    seconds: float
    count: int
    floor: float
    rows: tuple[MixtureRow, ...]


def read_mixture_result(path: Path) -> MixtureResult:
    """Read a file of `results/`.

    Raises:
        ValueError: it is no JSON or does not follow the schema.
    """
    return read_json(MixtureResult, path)


def mixture_table(results: Sequence[MixtureResult]) -> str:
    """Objectives by rows, numbers of steps by columns, as the paper prints its comparison; the cost behind."""
    counts = [row.steps for row in results[0].rows]
    lines = [
        f"| objective | {' | '.join(f'{n} step' + 's' * (n > 1) for n in counts)} | evaluations | time |",
        f"|:---|{'---:|' * len(counts)}---:|---:|",
    ]
    least = min(result.seconds for result in results)
    for result in results:
        rows = {row.steps: row for row in result.rows}
        cells = [_cell(rows[steps]) for steps in counts]
        lines.append(
            f"| {policy_name(result.objective)} | {' | '.join(cells)} | {result.evaluations:.3g} "
            f"| {result.seconds / least:.1f}x |"
        )
    first = results[0]
    lines += [
        "",
        f"1000 times the energy distance of {first.count:,} samples to as many fresh ones: mean and range over "
        f"{len(first.seeds)} training seeds; fresh samples themselves come to {1000 * first.floor:.1f} at most. "
        f"{first.updates:,} updates of {first.batch_size} rows each, {first.network}. *Evaluations*: of the network, "
        f"for a row and an update, the teacher's training included; the backward pass is not counted. *Time*: of the "
        f"training, against the fastest ({least:.0f} s on {first.hardware}).",
    ]
    return "\n".join(lines)


def _cell(row: MixtureRow) -> str:
    low, high = min(row.per_seed), max(row.per_seed)
    return f"**{1000 * row.mean:.1f}** [{1000 * low:.1f}, {1000 * high:.1f}]"
