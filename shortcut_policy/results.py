"""Results: a claim is a file that the script which measured it wrote; tables are generated from it."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortcut_policy.config import from_mapping, to_mapping


@dataclass(frozen=True)
class Training:
    """How the evaluated networks were trained: values of one run; all seeds alike."""

    steps: int
    seconds: float
    seeds: tuple[int, ...]
    parameters: int
    command: str
    commit: str
    hardware: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class EvaluationSettings:
    """How they were evaluated."""

    episodes: int
    first_seed: int
    metric: str
    checkpoint: str


@dataclass(frozen=True)
class Row:
    """The figures for one number of steps.

    Attributes:
        steps, nfe: sampling steps, and network evaluations for one chunk.
        mean, low, high: score and its 95 % interval.
        success, success_low, success_high: success rate and its 95 % interval (Wilson, over all episodes).
        per_seed: mean score of every training seed.
        latency_ms_p50, latency_ms_p99: observation in to chunk out, one robot.
    """

    steps: int
    nfe: int
    mean: float
    low: float
    high: float
    success: float
    success_low: float
    success_high: float
    per_seed: tuple[float, ...]
    latency_ms_p50: float
    latency_ms_p99: float


@dataclass(frozen=True)
class Result:
    """One file of `results/`."""

    name: str
    task: str
    objective: str
    network: str
    command: str
    commit: str
    hardware: str
    versions: Mapping[str, str]
    training: Training
    evaluation: EvaluationSettings
    rows: tuple[Row, ...]


def write_result(path: Path, result: Result) -> None:
    """Write the JSON file under a temporary name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(to_mapping(result), indent=1) + "\n")
    temporary.rename(path)


def read_result(path: Path) -> Result:
    """Read a file of `results/`.

    Raises:
        ValueError: it is no JSON or does not follow the schema.
    """
    try:
        values = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path.name} is damaged ({error}): restore it or measure again") from error
    return from_mapping(Result, values, f"{path.name}: ")


def markdown_table(result: Result) -> str:
    """The table of the README."""
    lines = [
        f"| steps | score ({result.evaluation.metric}) | success rate | latency p50 | p99 |",
        "|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.steps} | **{row.mean:.3f}** [{row.low:.3f}, {row.high:.3f}] "
        f"| {row.success:.2f} [{row.success_low:.2f}, {row.success_high:.2f}] "
        f"| {row.latency_ms_p50:.1f} ms | {row.latency_ms_p99:.1f} ms |"
        for row in result.rows
    ]
    training, evaluation = result.training, result.evaluation
    lines += [
        "",
        f"`{result.network}` ({training.parameters / 1e6:.1f} M parameters), {training.steps:,} updates in "
        f"{training.seconds / 60:.0f} min on {training.hardware}; training seeds {_join(training.seeds)}, "
        f"{evaluation.episodes} episodes each from seed {evaluation.first_seed}, checkpoint: "
        f"{evaluation.checkpoint.split(',')[0]}; 95 % intervals. Latency: one robot, on {result.hardware}.",
    ]
    return "\n".join(lines)


def _join(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
