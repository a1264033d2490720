"""Results: a claim is a file that the script which measured it wrote; tables are generated from it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shortcut_policy.config import from_mapping, to_mapping
from shortcut_policy.statistics import bootstrap_mean_interval, wilson_interval

if TYPE_CHECKING:
    from shortcut_policy.evaluation import Evaluation


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
        reruns: episodes that ran again because a rollout worker died, over all training seeds.
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
    reruns: int = 0


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


def make_row(steps: int, nfe: int, evaluations: Sequence[Evaluation], latency_ms: np.ndarray) -> Row:
    """The figures of one number of steps over all training seeds.

    Args:
        steps: sampling steps that were asked for.
        nfe: network evaluations that the sampler made of them.
        evaluations: one for every training seed.
        latency_ms: (n,) of single calls.
    """
    scores = [evaluation.scores for evaluation in evaluations]
    score = bootstrap_mean_interval(scores)
    successes = [episode.success for evaluation in evaluations for episode in evaluation.episodes]
    success = wilson_interval(sum(successes), len(successes))
    p50, p99 = np.percentile(latency_ms, [50, 99])
    figures: Mapping[str, float] = {
        "mean": np.mean(scores),
        "low": score.low,
        "high": score.high,
        "success": np.mean(successes),
        "success_low": success.low,
        "success_high": success.high,
        "latency_ms_p50": p50,
        "latency_ms_p99": p99,
    }
    return Row(
        steps=steps,
        nfe=nfe,
        per_seed=tuple(round(float(np.mean(s)), 4) for s in scores),
        reruns=sum(len(evaluation.reruns) for evaluation in evaluations),
        **{name: round(float(value), 4) for name, value in figures.items()},
    )


def result_paths(output: Path, copy: str | None, overwrite: bool) -> list[Path]:
    """Where an evaluation writes its result: `output`/result.json, and a copy of it if one is asked for.

    Raises:
        FileExistsError: one of them is there already, and must not be written over.
    """
    paths = [output / "result.json", *([Path(copy)] if copy else [])]
    for path in paths:
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists: choose another output= or result=, or say overwrite=true")
    return paths


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
    reruns = [f"{row.reruns} with {row.steps} steps" for row in result.rows if row.reruns]
    if reruns:
        lines[-1] += f" Episodes that ran again because a rollout worker died: {', '.join(reruns)}."
    return "\n".join(lines)


def policy_name(objective: str) -> str:
    """An objective or algorithm as it is called in prose."""
    return {"bc_rnn_gmm": "BC-RNN-GMM"}.get(objective, objective.replace("_", " "))


def comparison_table(results: Sequence[Result]) -> str:
    """Several policies, on one task or several, side by side: success rates and intervals by number of steps."""
    counts = sorted({row.steps for result in results for row in result.rows})
    lines = [
        f"| task | policy | {' | '.join(map(str, counts))} | one step | training |",
        f"|:---|:---|{'---:|' * len(counts)}---:|:---|",
    ]
    for result in results:
        rows = {row.steps: row for row in result.rows}
        cells = [_success_cell(rows.get(steps)) for steps in counts]
        least, training = rows[min(rows)], result.training
        latency = f"{least.latency_ms_p50:.1f} ms"
        seeds = f"{len(training.seeds)} seeds x " if len(training.seeds) > 1 else ""
        lines.append(
            f"| {result.task} | {policy_name(result.objective)} | {' | '.join(cells)} | {latency} "
            f"| {seeds}{training.steps:,} updates, {result.network} |"
        )
    episodes = sorted({result.evaluation.episodes for result in results})
    first_seeds = sorted({result.evaluation.first_seed for result in results})
    lines += [
        "",
        f"Success rate by number of network evaluations, with Wilson 95 % intervals over all episodes; "
        f"{_join(episodes)} episodes for every training seed, from seed {_join(first_seeds)}; last checkpoint. "
        f"*One step*: median latency of the fewest steps, one robot, on {results[0].hardware}.",
    ]
    return "\n".join(lines)


def _success_cell(row: Row | None) -> str:
    return "" if row is None else f"**{row.success:.2f}** [{row.success_low:.2f}, {row.success_high:.2f}]"


def _join(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
