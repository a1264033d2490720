"""Sample images in several numbers of steps from the same noise: `... checkpoint=DIR 'steps=[128,4,1]' count=40`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra_command import command

from image_gen.generator import Generator
from image_gen.grid import labelled_grids
from shortcut_policy.config import from_mapping
from shortcut_policy.pretrained import find_checkpoint
from shortcut_policy.training.distributed import join_processes


@dataclass(frozen=True)
class SampleConfig:
    """The values of `configs/sample_images.yaml`."""

    checkpoint: str
    steps: tuple[int, ...]
    count: int
    columns: int
    guidance: float
    seed: int
    scale: int
    output: str | None
    device: str

    def __post_init__(self) -> None:
        if not self.steps or min(self.count, self.columns, self.scale, *self.steps) < 1:
            raise ValueError(
                "steps, count, columns and scale must be positive, got "
                f"{list(self.steps)}, {self.count}, {self.columns} and {self.scale}"
            )


@command("sample_images")
def main(values: dict[str, Any]) -> None:
    """Sample, and draw the grids beside each other."""
    config = from_mapping(SampleConfig, values)
    with join_processes(config.device) as processes:
        made = Generator.from_pretrained(find_checkpoint(config.checkpoint), processes.device)
        labels = torch.arange(config.count) % max(1, made.config.num_classes)
        grids = {}
        for steps in config.steps:
            generator = torch.Generator(processes.device).manual_seed(config.seed)
            grids[steps] = made.sample(labels, steps, guidance=config.guidance, generator=generator)
    output = Path(config.output) if config.output else Path(config.checkpoint) / "samples.png"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(labelled_grids(grids, config.columns, config.scale))
    print(f"{output}: {config.count} images in {', '.join(map(str, config.steps))} steps, from the same noise")


if __name__ == "__main__":
    main()
