"""One HTML page about trained and evaluated policies: what was trained, the curves, scores, latencies, videos.

Everything is inside the file, which can be sent to somebody as it is.
"""

import base64
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from shortcut_policy.diversity import Diversity, hand_paths, has_ways, measure_diversity
from shortcut_policy.plots import comparison, demonstrations, training_curves
from shortcut_policy.result_tables import policy_name
from shortcut_policy.results import Result, read_result

__all__ = ["ReportedRun", "Stage", "Video", "read_runs", "write_report"]

_VIDEO = re.compile(r"seed(?P<seed>\d+)_(?P<steps>\d+)steps_score(?P<score>[-\d.]+)\.mp4")
_DRAWN = 60  # demonstrations: more lines hide each other


@dataclass(frozen=True)
class Video:
    """The film of an episode: where it lies, and its score as the file's name tells it."""

    path: Path
    score: str

    @property
    def source(self) -> str:
        """The film as a data URI."""
        return _data_uri(self.path.read_bytes(), "video/mp4")


@dataclass(frozen=True)
class ReportedRun:
    """A trained and evaluated policy.

    Attributes:
        name: of the row: its objective, with the folder's name where several runs have the same.
        config: what the run was made of (run.json).
        metrics: the lines of metrics.jsonl.
        result: of the evaluation.
        videos: (seed, steps) -> film.
    """

    name: str
    config: Mapping[str, Any]
    metrics: Sequence[Mapping[str, float]]
    result: Result
    videos: Mapping[tuple[int, int], Video]

    @property
    def rows(self) -> Mapping[int, Any]:
        """Steps -> row of the result."""
        return {row.steps: row for row in self.result.rows}


@dataclass(frozen=True)
class Stage:
    """A part of what led to the report: its name, its commands, and how long they took together."""

    name: str
    commands: tuple[str, ...]
    seconds: float


def read_runs(folders: Sequence[Path]) -> list[ReportedRun]:
    """Read folders of runs of `train_policy.py` that `eval_policy.py` has evaluated.

    Raises:
        FileNotFoundError: one of them is not there, or was not evaluated.
        ValueError: a result is damaged.
    """
    runs = [_read_run(folder) for folder in folders]
    names = Counter(run.name for run in runs)
    return [
        replace(run, name=f"{run.name} ({folder.name})") if names[run.name] > 1 else run
        for run, folder in zip(runs, folders, strict=True)
    ]


def _read_run(folder: Path) -> ReportedRun:
    result, record = folder / "evaluation" / "result.json", folder / "run.json"
    if not record.exists():
        raise FileNotFoundError(f"{folder} holds no run of scripts/train_policy.py: run.json is missing")
    if not result.exists():
        raise FileNotFoundError(f"{folder} was not evaluated: python scripts/eval_policy.py checkpoint={folder}")
    videos = {}
    for path in sorted((folder / "evaluation" / "videos").glob("*.mp4")):
        if match := _VIDEO.fullmatch(path.name):
            videos[int(match["seed"]), int(match["steps"])] = Video(path, match["score"])
    read = read_result(result)
    return ReportedRun(
        policy_name(read.objective),
        json.loads(record.read_text()),
        [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()],
        read,
        videos,
    )


def write_report(
    path: Path,
    runs: Sequence[ReportedRun],
    *,
    stages: Sequence[Stage] = (),
    next_commands: Sequence[str] = (),
    no_videos: str | None = None,
) -> None:
    """Write the page.

    Args:
        path: of the HTML file; it is replaced.
        runs: of one task, the policy that the page is about first.
        stages: what led here, to be shown with its times.
        next_commands: what the reader may try.
        no_videos: why there are none.

    Raises:
        ValueError: there is no run, or they are of different tasks.
        ImportError: matplotlib or Jinja is missing.
    """
    tasks = sorted({run.result.task for run in runs})
    if len(tasks) != 1:
        raise ValueError(f"a report is about the runs of one task, not of {', '.join(tasks) or 'none'}")
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise ImportError("reports need the extra 'report': pip install -e '.[report]'") from error
    results = [run.result for run in runs]
    template = Environment(
        loader=PackageLoader("shortcut_policy"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    ).get_template("report.html")
    page = template.render(
        title=f"{tasks[0].replace('_', ' ').capitalize()}: how few network evaluations?",
        subtitle=f"{' and '.join(run.name for run in runs)}, side by side: the same network, data and updates"
        if _alike(results)
        else " and ".join(run.name for run in runs),
        cards=_cards(results),
        demonstrations=_demonstrations(Path(runs[0].config["data"]["path"])),
        runs=runs,
        curves=_data_uri(training_curves({run.name: run.metrics for run in runs}), "image/png"),
        comparison=_data_uri(comparison({run.name: run.result for run in runs}), "image/png"),
        evaluation_words=_evaluation_words(results),
        step_counts=sorted({row.steps for result in results for row in result.rows}),
        seeds=sorted({seed for run in runs for seed, _ in run.videos}),
        no_videos=no_videos,
        stages=stages,
        next_commands=next_commands,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(page)
    temporary.rename(path)


def _alike(results: Sequence[Result]) -> bool:
    """Whether the runs differ in their objective alone."""
    trainings = [(r.network, r.training.steps, r.training.options["trainer"]) for r in results]
    return len(results) > 1 and all(training == trainings[0] for training in trainings)


def _cards(results: Sequence[Result]) -> list[dict[str, str]]:
    """The figures at the top: of the first run with the fewest steps, and what the others need or give."""
    first = results[0]
    fewest = min(first.rows, key=lambda row: row.steps)
    episodes = first.evaluation.episodes * len(first.training.seeds)
    said = f"{fewest.steps} step{'s' if fewest.steps > 1 else ''}"
    cards = [
        {
            "figure": f"{fewest.success:.0%}",
            "words": f"success of {policy_name(first.objective)} in {said}, {episodes} episodes",
        },
        {"figure": f"{fewest.latency_ms_p50:.1f} ms", "words": f"from observation to action chunk in {said}"},
    ]
    for other in results[1:]:
        for row in other.rows:
            if row.steps == fewest.steps:
                words = f"success of {policy_name(other.objective)} in {said}"
                cards.append({"figure": f"{row.success:.0%}", "words": words})
        most = max(other.rows, key=lambda row: row.steps)
        words = f"{policy_name(other.objective)} in {most.steps} steps, which succeeds in {most.success:.0%}"
        cards.append({"figure": f"{most.latency_ms_p50:.1f} ms", "words": words})
    return cards


def _demonstrations(path: Path) -> dict[str, Any] | None:
    """What the demonstrations are, where they are still there; with a picture where experts made them."""
    if not path.exists():
        return None
    if path.suffix not in (".hdf5", ".h5") or not has_ways(path):
        return {"words": f"From {path}.", "picture": None}
    return {
        "words": _ways_in_words(path, measure_diversity(path)),
        "picture": _data_uri(demonstrations(hand_paths(path, _DRAWN)), "image/png"),
        "drawn": _DRAWN,
    }


def _ways_in_words(path: Path, diversity: Diversity) -> str:
    count = sum(diversity.ways.values())
    ways = ", ".join(f"{way.replace('_', ' ')} ({number})" for way, number in diversity.ways.items())
    return (
        f"{count} demonstrations of a scripted expert that knows the simulator's state ({path.name}), done in "
        f"{len(diversity.ways)} ways: {ways}. The ways explain {diversity.explained:.0%} of the variance of the "
        "hand's paths; the rest is drawn anew each time: speed, way-points, noise."
    )


def _evaluation_words(results: Sequence[Result]) -> str:
    evaluation, seeds = results[0].evaluation, len(results[0].training.seeds)
    words = (
        f"{evaluation.episodes} episodes in the simulator for each number of steps, from seed {evaluation.first_seed}: "
        "every policy meets the same initial states and draws the same noise."
    )
    return words + (f" {seeds} training seeds." if seeds > 1 else " One training seed.")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
