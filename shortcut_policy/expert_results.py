"""How good and how diverse scripted experts are, read off the data sets that they made; a file of `results/`."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from shortcut_policy.config import read_json
from shortcut_policy.diversity import measure_diversity
from shortcut_policy.statistics import wilson_interval

__all__ = ["ExpertResults", "ExpertRow", "expert_table", "measure_expert", "read_expert_results"]


@dataclass(frozen=True)
class ExpertRow:
    """One expert, by one data set.

    Attributes:
        task: of the data set.
        demos: that it holds: episodes that succeeded.
        attempts: that these took, one for each seed from `first_seed` up.
        success, success_low, success_high: share of the attempts that succeeded, and its Wilson 95 % interval. The
            collection ends with a success, which is neglected.
        steps: of a demo, on average.
        ways: name -> number of demos.
        between_mm, within_mm, explained: of the hands' paths, see `Diversity`.
    """

    task: str
    demos: int
    attempts: int
    first_seed: int
    success: float
    success_low: float
    success_high: float
    steps: float
    ways: Mapping[str, int]
    between_mm: float
    within_mm: float
    explained: float


@dataclass(frozen=True)
class ExpertResults:
    """The file: which command read it off which data sets, and what it found."""

    name: str
    command: str
    commit: str
    versions: Mapping[str, str]
    rows: tuple[ExpertRow, ...]


def measure_expert(path: str | Path) -> ExpertRow:
    """Measure the expert that made a data set.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it was not made by scripts/collect_demos.py.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} is not there: python scripts/collect_demos.py task=... output={path}")
    with h5py.File(path, "r") as file:
        data = file.get("data", file)
        missing = [name for name in ("expert", "attempts", "first_seed") if name not in data.attrs]
        if missing:
            raise ValueError(f"{path} does not tell its {missing[0]}: scripts/collect_demos.py did not make it")
        task = str(json.loads(data.attrs["expert"])["task"])
        attempts, first_seed = int(data.attrs["attempts"]), int(data.attrs["first_seed"])
        steps = [int(demo.attrs["num_samples"]) for demo in data.values()]
    diversity, success = measure_diversity(path), wilson_interval(len(steps), attempts)
    return ExpertRow(
        task=task,
        demos=len(steps),
        attempts=attempts,
        first_seed=first_seed,
        success=round(len(steps) / attempts, 4),
        success_low=round(success.low, 4),
        success_high=round(success.high, 4),
        steps=round(float(np.mean(steps)), 1),
        ways=diversity.ways,
        between_mm=round(1000 * diversity.between, 1),
        within_mm=round(1000 * diversity.within, 1),
        explained=round(diversity.explained, 4),
    )


def read_expert_results(path: Path) -> ExpertResults:
    """Read a file of `results/`.

    Raises:
        ValueError: it does not follow the schema.
    """
    return read_json(ExpertResults, path)


def expert_table(rows: Sequence[ExpertRow]) -> str:
    """The table of the README."""
    lines = [
        "| task | success of the expert | demonstrations | steps | ways | paths: between, within | explained |",
        "|:---|---:|---:|---:|:---|---:|---:|",
    ]
    for row in rows:
        ways = ", ".join(f"{way.replace('_', ' ')} {count}" for way, count in row.ways.items())
        lines.append(
            f"| {row.task} | **{row.success:.2f}** [{row.success_low:.2f}, {row.success_high:.2f}] "
            f"of {row.attempts} | {row.demos} | {row.steps:.0f} | {ways} "
            f"| {row.between_mm:.0f}, {row.within_mm:.0f} mm | {row.explained:.0%} |"
        )
    return "\n".join(lines)
