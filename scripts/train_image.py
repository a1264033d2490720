"""Train an image generator: `python scripts/train_image.py dataset=digits`; `--help` lists all."""

from typing import Any

from hydra_command import command

from image_gen.training import ImageExperimentConfig, train
from shortcut_policy.config import from_mapping
from shortcut_policy.provenance import current_command, current_commit


@command("train_image")
def main(values: dict[str, Any]) -> None:
    """Train, or resume the run that was interrupted."""
    values["trainer"]["seed"] = values.pop("seed")
    for part in ("network", "objective"):
        name = values[part].pop("name")
        values[part] = {"name": name, "options": values[part]}
    config = from_mapping(ImageExperimentConfig, values)
    progress = train(config, {"command": current_command(), "commit": current_commit()})
    print(f"trained {progress.step} steps in {progress.seconds / 60:.1f} min: {config.folder}/checkpoints/last")


if __name__ == "__main__":
    main()
