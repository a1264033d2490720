"""Train objectives alike and compare them: `... task=pusht 'objectives=[shortcut,flow_matching]' results=results`.

Same network, data, batches, number of updates and seeds for all; every training and evaluation is one of the other
commands, shown as it could be typed. What is interrupted goes on with the same command. As a multirun, each job does
the objectives and seeds that it is given, and scripts/collect_results.py gathers what they left.
"""

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from collect_results import collect
from command_parts import Part, run
from hydra.core.hydra_config import HydraConfig
from hydra_command import command

from shortcut_policy.config import from_mapping
from shortcut_policy.pretrained import find_checkpoint, read_config
from shortcut_policy.result_tables import objective_table
from shortcut_policy.training.interruption import TrainingInterrupted

CONFIGS = Path(__file__).parents[1] / "configs"
GROUPS = ("task", "network", "trainer")


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
    device: str

    def __post_init__(self) -> None:
        for name in ("objectives", "seeds", "steps"):
            if not getattr(self, name):
                raise ValueError(f"{name}=[] leaves nothing to compare: name at least one")
        if self.at_once < 1:
            raise ValueError(f"at_once must be positive, got {self.at_once}")
        known = [path.stem for path in sorted((CONFIGS / "objective").glob("*.yaml"))]
        for name in self.objectives:
            if name not in known:
                raise ValueError(f"unknown objective {name!r}: known are {', '.join(known)}")

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


def check(train: Part) -> None:
    """A training that is done must be the one that is meant.

    Raises:
        FileExistsError: it is another.
    """
    if train.product.exists():
        config = read_config(find_checkpoint(train.product.parent), "policy")["config"]
        made = config["metadata"]["training"]["command"]
        if not made.endswith(f" {shlex.join(train.words[1:])}"):
            raise FileExistsError(f"{train.product.parent} holds another training ({made}): choose another folder=")


def do(parts: list[Part], title: str) -> None:
    """Run what is not done yet, at the same time."""
    print(f"\n{title}", *(part.command for part in parts), sep="\n      ", flush=True)
    missing = [part for part in parts if not part.product.exists()]
    started = time.perf_counter()
    code = run(missing) if missing else 0
    if code:
        number = -code if code < 0 else code - 128 if code > 128 else 0
        if number:
            raise TrainingInterrupted("the comparison was interrupted: the same command goes on", number)
        print(f"error: {title} failed (exit code {code}), see above", file=sys.stderr)
        sys.exit(code)
    print(f"      {f'{time.perf_counter() - started:.0f} s' if missing else 'done before'}", flush=True)


@command("compare_objectives")
def main(values: dict[str, Any]) -> None:
    """Train, evaluate, collect, print the table."""
    hydra = HydraConfig.get()
    values |= {"task": values["task_name"], "training": training_words(hydra.runtime.choices, hydra.overrides.task)}
    names = [field.name for field in fields(ComparisonConfig)]
    config = from_mapping(ComparisonConfig, {name: values[name] for name in names})
    parts = config.parts()
    for train, _ in parts:
        check(train)
    for first in range(0, len(parts), config.at_once):
        some = parts[first : first + config.at_once]
        do([train for train, _ in some], f"[{first + 1}/{len(parts)}] train")
    for number, (_, evaluate) in enumerate(parts, 1):  # one after the other: they measure latencies
        do([evaluate], f"[{number}/{len(parts)}] evaluate")
    results = collect(config.path, Path(config.results) if config.results else None, only=config.objectives)
    print(f"\n{objective_table(results)}\n\n{config.path / 'comparison.png'}: score against steps and latency")


if __name__ == "__main__":
    main()
