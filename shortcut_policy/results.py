"""Results: a claim is a file that the script which measured it wrote; tables are generated from it."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from shortcut_policy.config import read_json, to_mapping
from shortcut_policy.episode_results import Evaluation
from shortcut_policy.statistics import bootstrap_mean_interval, wilson_interval

_PLAIN_LIST = re.compile(r"\[[^][{}\"]*\]")
"""A list, in JSON, that holds neither lists nor mappings nor texts."""


@dataclass(frozen=True)
class Training:
    """How the evaluated networks were trained: values of one run; all seeds alike.

    Attributes:
        steps, seconds: updates, and how long they took, on average over the seeds.
        evaluations_per_row: see `shortcut_policy.objective_cost`; None where it was not counted.
        held_out: the last figures of `shortcut_policy.validation` on held-out windows, on average over the seeds; empty
            where none were measured.
    """

    steps: int
    seconds: float
    seeds: tuple[int, ...]
    parameters: int
    command: str
    commit: str
    hardware: str
    options: Mapping[str, Any]
    evaluations_per_row: float | None = None
    held_out: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationSettings:
    """How they were evaluated; `noise_scale` is that of `PolicyConfig`."""

    episodes: int
    first_seed: int
    metric: str
    checkpoint: str
    noise_scale: float | None = None


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
        scores, successes: of every episode of every training seed, in the order of their seeds; empty in older files.
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
    scores: tuple[tuple[float, ...], ...] = ()
    successes: tuple[tuple[bool, ...], ...] = ()


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
    p50, p99 = np.percentile(latency_ms, [50, 99])
    return _row_of(
        steps,
        nfe,
        [[round(float(score), 4) for score in evaluation.scores] for evaluation in evaluations],
        [evaluation.successes for evaluation in evaluations],
        (round(float(p50), 4), round(float(p99), 4)),
        sum(len(evaluation.reruns) for evaluation in evaluations),
    )


def merge_seeds(results: Sequence[Result], command: str, commit: str) -> Result:
    """Results of the same training with different seeds, in one: as if they had been evaluated together.

    Latencies are those of the first; `name` is too.

    Raises:
        ValueError: they do not belong together, or a file is so old that it holds no single episodes.
    """
    results = sorted(results, key=lambda result: result.training.seeds)
    first = results[0]
    seeds = tuple(seed for result in results for seed in result.training.seeds)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{first.task}, {first.objective}: results of the same training seed twice: {list(seeds)}")
    for result in results:
        for what, one, two in (
            ("task", result.task, first.task),
            ("objective", result.objective, first.objective),
            ("network", result.network, first.network),
            ("updates", result.training.steps, first.training.steps),
            ("options", result.training.options, first.training.options),
            ("episodes", result.evaluation.episodes, first.evaluation.episodes),
            ("first_seed", result.evaluation.first_seed, first.evaluation.first_seed),
            ("noise_scale", result.evaluation.noise_scale, first.evaluation.noise_scale),
            ("steps", [row.steps for row in result.rows], [row.steps for row in first.rows]),
        ):
            if one != two:
                raise ValueError(f"results of seeds {list(seeds)} differ in their {what}: {one} and {two}")
        if not all(row.scores for row in result.rows):
            raise ValueError(
                f"the result of seed {list(result.training.seeds)} holds no single episodes: evaluate again"
            )
    rows = []
    for index, row in enumerate(first.rows):
        same = [result.rows[index] for result in results]
        scores, successes = ([list(v) for one in same for v in getattr(one, name)] for name in ("scores", "successes"))
        latency = (row.latency_ms_p50, row.latency_ms_p99)
        rows.append(_row_of(row.steps, row.nfe, scores, successes, latency, sum(one.reruns for one in same)))
    labels, hashes = zip(*(result.evaluation.checkpoint.split(", sha256 ") for result in results), strict=True)
    checkpoint = f"{' '.join(sorted(set(labels)))}, sha256 {' '.join(hashes)}"
    return replace(
        first,
        command=command,
        commit=commit,
        training=replace(
            first.training,
            seeds=seeds,
            seconds=round(sum(result.training.seconds for result in results) / len(results), 1),
            held_out=mean_figures([result.training.held_out for result in results]),
        ),
        evaluation=replace(first.evaluation, checkpoint=checkpoint),
        rows=tuple(rows),
    )


def mean_figures(figures: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The mean of every figure that all of them have, to six digits."""
    shared = [name for name in figures[0] if all(name in one for one in figures)]
    return {name: float(f"{sum(one[name] for one in figures) / len(figures):.6g}") for name in shared}


def _row_of(
    steps: int,
    nfe: int,
    scores: Sequence[Sequence[float]],
    successes: Sequence[Sequence[bool]],
    latency_ms: tuple[float, float],
    reruns: int,
) -> Row:
    score = bootstrap_mean_interval(scores)
    flat = [success for seed in successes for success in seed]
    success = wilson_interval(sum(flat), len(flat))
    figures: Mapping[str, float] = {
        "mean": np.mean([np.mean(seed) for seed in scores]),
        "low": score.low,
        "high": score.high,
        "success": np.mean(flat),
        "success_low": success.low,
        "success_high": success.high,
    }
    return Row(
        steps=steps,
        nfe=nfe,
        per_seed=tuple(round(float(np.mean(seed)), 4) for seed in scores),
        latency_ms_p50=latency_ms[0],
        latency_ms_p99=latency_ms[1],
        reruns=reruns,
        scores=tuple(map(tuple, scores)),
        successes=tuple(map(tuple, successes)),
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
    """Write the JSON file under a temporary name and rename it; lists of plain values stand on one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    text = json.dumps(to_mapping(result), indent=1)
    temporary.write_text(_PLAIN_LIST.sub(lambda found: re.sub(r"\s*\n\s*", " ", found[0]), text) + "\n")
    temporary.rename(path)


def read_result(path: Path) -> Result:
    """Read a file of `results/`.

    Raises:
        ValueError: it is no JSON or does not follow the schema.
    """
    return read_json(Result, path)
