"""The folder that a training with robomimic leaves: its checkpoint, and what an evaluation must know of the training.

model.pth     robomimic's own checkpoint, after the last step
run.json      `RobomimicRun`
robomimic/    whatever else robomimic wrote
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from shortcut_policy.config import read_json, to_mapping
from shortcut_policy.experiment_config import EnvironmentConfig
from shortcut_policy.results import Training
from shortcut_policy.training.run_folder import write_json


@dataclass(frozen=True)
class RobomimicRun:
    """One training.

    Attributes:
        task, algorithm: their names.
        environment: in which the policy is evaluated; None for data without one.
        training: of this one seed.
    """

    task: str
    algorithm: str
    environment: EnvironmentConfig | None
    training: Training

    def write(self, folder: Path) -> None:
        """Write run.json, which marks the run as complete."""
        write_json(folder / "run.json", to_mapping(self))

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read run.json.

        Raises:
            FileNotFoundError: the folder holds no complete run.
            ValueError: the file is damaged.
        """
        path = folder / "run.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"{folder} holds no complete run of scripts/train_robomimic.py: run.json is missing"
            )
        return read_json(cls, path, "train again")


def training_of_all(runs: Sequence[RobomimicRun]) -> Training:
    """The trainings of several seeds as one.

    Raises:
        ValueError: they were not trained alike, or not each with a seed of its own.
    """
    first = runs[0]
    for run in runs:
        alike = replace(run, training=first.training) == first and run.training.options == first.training.options
        if not alike or run.training.steps != first.training.steps:
            raise ValueError(f"the runs were not trained alike: {run.training.command} and {first.training.command}")
    seeds = tuple(seed for run in runs for seed in run.training.seeds)
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"every checkpoint must have a training seed of its own, got {list(seeds)}")
    seconds = round(sum(run.training.seconds for run in runs) / len(runs), 1)
    return replace(first.training, seeds=seeds, seconds=seconds)
