"""Train objectives alike and compare them: `... task=pusht 'objectives=[shortcut,flow_matching]' results=results`.

Same network, data, batches, number of updates and seeds for all; every training and evaluation is one of the other
commands, shown as it could be typed. What is interrupted goes on with the same command. As a multirun, each job does
the objectives and seeds that it is given, and scripts/collect_results.py gathers what they left.
"""

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from collect_results import collect
from command_parts import Part, run
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra_command import command
from objective_presets import make_objective

from shortcut_policy.config import from_mapping
from shortcut_policy.pretrained import find_checkpoint, read_config
from shortcut_policy.result_tables import objective_table
from shortcut_policy.results import Result, read_result

GROUPS = ("task", "network", "vision", "trainer")


@dataclass(frozen=True)
class ComparisonConfig:
    """The values of `configs/compare_objectives.yaml`.

    Attributes:
        task: its name.
        training: words for scripts/train_policy.py: the choices and values on the command line that are not of the
            comparison itself.
    """

    task: str
    training: tuple[str, ...]
    objectives: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: tuple[int, ...]
    episodes: int
    first_seed: int
    num_envs: int
    workers: int | None
    videos: int
    latency_calls: int
    at_once: int
    folder: str | None
    results: str | None
    overwrite: bool
    device: str

    def __post_init__(self) -> None:
        for name in ("objectives", "seeds", "steps"):
            if not getattr(self, name):
                raise ValueError(f"{name}=[] leaves nothing to compare: name at least one")
        for name in ("at_once", "episodes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if min(self.steps) < 1:
            raise ValueError(f"steps must be positive, got {list(self.steps)}")

    @property
    def path(self) -> Path:
        """Folder of the runs."""
        return Path(self.folder or f"outputs/{self.task}_comparison")

    def parts(self) -> list[tuple[Part, Part]]:
        """The training and the evaluation of every objective with every seed."""
        workers = "null" if self.workers is None else self.workers
        parts = []
        for objective in self.objectives:
            for seed in self.seeds:
                output = self.path / f"{objective}_{seed}"
                train = ("train_policy.py", *self.training, f"objective={objective}", f"seed={seed}")
                train += (f"device={self.device}", f"output={output}")
                evaluate = ("eval_policy.py", f"checkpoint={output}", f"steps=[{','.join(map(str, self.steps))}]")
                evaluate += (f"episodes={self.episodes}", f"first_seed={self.first_seed}", f"num_envs={self.num_envs}")
                evaluate += (f"workers={workers}", f"videos={self.videos}", f"latency_calls={self.latency_calls}")
                evaluate += (f"device={self.device}", "overwrite=true")
                result = output / "evaluation" / "result.json"
                parts.append((Part(train, output / "finished.json"), Part(evaluate, result)))
        return parts


def training_words(choices: Mapping[str, str], overrides: Sequence[str]) -> tuple[str, ...]:
    """What of this command line is meant for the trainings.

    Args:
        choices: Hydra's: group -> the file that was chosen.
        overrides: Hydra's: the words of the command line, in a multirun those of this job.
    """
    own = {field.name for field in fields(ComparisonConfig)} | set(GROUPS)
    given = [word for word in overrides if word.lstrip("+~").partition("=")[0] not in own]
    return (*(f"{group}={choices[group]}" for group in GROUPS), *given)


def check_objectives(config: ComparisonConfig, updates: int, compiled: bool) -> None:
    """Say before the first training what the last one would stumble over.

    Raises:
        ValueError: an objective that is not known, or that cannot be trained so.
    """
    for preset in config.objectives:
        objective, _ = make_objective(preset)
        try:
            needs = frozenset().union(*(phase.objective.needs for phase in objective.phases(updates)))
        except ValueError as error:
            raise ValueError(f"{preset}: {error}") from error
        if compiled and "jvp" in needs:
            raise ValueError(f"{preset} differentiates the network in forward mode: say trainer.compile=false for all")


def check_done(config: ComparisonConfig, updates: int) -> None:
    """What is there already must be what is meant.

    Raises:
        FileExistsError: a training, an evaluation or a results file is another.
    """
    asked = (list(config.steps), config.episodes, config.first_seed)
    for train, evaluate in config.parts():
        folder = train.product.parent
        if train.product.exists():
            made = read_config(find_checkpoint(folder), "policy")["config"]["metadata"]["training"]["command"]
            if not made.endswith(f" {shlex.join(train.words[1:])}"):
                raise FileExistsError(f"{folder} holds another training ({made}): choose another folder=")
        if evaluate.product.exists():
            there = _evaluated(read_result(evaluate.product))
            if there != asked:
                raise FileExistsError(
                    f"{evaluate.product} is of steps {there[0]}, {there[1]} episodes from seed {there[2]}: choose "
                    "another folder=, or remove it"
                )
    if config.results is None or config.overwrite:
        return
    for preset in config.objectives:
        path = Path(config.results) / f"{config.task}_comparison_{preset}.json"
        if path.exists():
            result = read_result(path)
            if (_evaluated(result), result.training.seeds, result.training.steps) != (asked, config.seeds, updates):
                raise FileExistsError(
                    f"{path} is of another comparison: choose another results=, or say overwrite=true"
                )


def _evaluated(result: Result) -> tuple[list[int], int, int]:
    return [row.steps for row in result.rows], result.evaluation.episodes, result.evaluation.first_seed


def do(parts: list[Part], title: str) -> None:
    """Run what is not done yet, at the same time."""
    print(f"\n{title}", *(part.command for part in parts), sep="\n      ", flush=True)
    missing = [part for part in parts if not part.product.exists()]
    started = time.perf_counter()
    if missing:
        run(missing, whole="the comparison", stage=title)
    print(f"      {f'{time.perf_counter() - started:.0f} s' if missing else 'done before'}", flush=True)


@command("compare_objectives")
def main(values: dict[str, Any]) -> None:
    """Train, evaluate, collect, print the table."""
    hydra = HydraConfig.get()
    values |= {"task": values["task_name"], "training": training_words(hydra.runtime.choices, hydra.overrides.task)}
    names = [field.name for field in fields(ComparisonConfig)]
    config = from_mapping(ComparisonConfig, {name: values[name] for name in names})
    if config.results is not None and hydra.mode == RunMode.MULTIRUN:
        raise ValueError("results= is for a single run: scripts/collect_results.py gathers what a multirun leaves")
    trainer = values["trainer"]
    check_objectives(config, trainer["steps"], trainer["compile"])
    check_done(config, trainer["steps"])
    parts = config.parts()
    for first in range(0, len(parts), config.at_once):
        some = parts[first : first + config.at_once]
        do([train for train, _ in some], f"[{first + 1}/{len(parts)}] train")
    for number, (_, evaluate) in enumerate(parts, 1):  # one after the other: they measure latencies
        do([evaluate], f"[{number}/{len(parts)}] evaluate")
    target = Path(config.results) if config.results else None
    results = collect(config.path, target, config.overwrite, config.objectives, config.seeds)
    print(f"\n{objective_table(results)}\n\n{config.path / 'comparison.png'}: score against steps and latency")


if __name__ == "__main__":
    main()
