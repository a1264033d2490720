"""Train a policy: `python scripts/train_policy.py task=pusht data.path=... network=unet_tiny`; `--help` lists all."""

from typing import Any

from hydra_command import command

from shortcut_policy.config import from_mapping
from shortcut_policy.experiment import train
from shortcut_policy.experiment_config import ExperimentConfig


def to_experiment(values: dict[str, Any]) -> ExperimentConfig:
    """Turn the composed YAML into the validated configuration.

    Raises:
        ValueError: values are missing, unknown or wrong.
    """
    if "task_name" not in values:
        raise ValueError(
            "task_name is missing: a file of the folder task/ has it, and begins with '# @package _global_'"
        )
    seed = values.pop("seed")
    values["task"] = values.pop("task_name")
    for part in ("network", "objective"):
        name = values[part].pop("name")
        values[part] = {"name": name, "options": values[part]}
    values["trainer"]["seed"] = seed
    return from_mapping(ExperimentConfig, values)


@command("train_policy")
def main(values: dict[str, Any]) -> None:
    """Train, or resume the run that was interrupted."""
    experiment = to_experiment(values)
    progress = train(experiment)
    print(f"trained {progress.step} steps in {progress.seconds / 60:.1f} min: {experiment.folder}/checkpoints/last")


if __name__ == "__main__":
    main()
