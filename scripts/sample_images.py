"""Sample images in several numbers of steps from the same noise: `... checkpoint=DIR 'steps=[128,4,1]' count=40`.

With interpolate=8, every row is a way of eight images from one noise to another, with the same label.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra_command import command
from torch import Tensor

from image_gen.generator import Generator
from image_gen.grid import labelled_grids
from image_gen.interpolation import slerp
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
    interpolate: int | None
    scale: int
    output: str | None
    device: str

    def __post_init__(self) -> None:
        if not self.steps or min(self.count, self.columns, self.scale, *self.steps) < 1:
            raise ValueError(
                "steps, count, columns and scale must be positive, got "
                f"{list(self.steps)}, {self.count}, {self.columns} and {self.scale}"
            )
        if self.interpolate is not None and self.interpolate < 2:
            raise ValueError(f"interpolate must be at least 2, for the two ends, or null, got {self.interpolate}")


def draw_noise(config: SampleConfig, made: Generator) -> tuple[Tensor, Tensor]:
    """Labels (N,), which take turns, and noise (N, C, H, W): of single images, or of ways from one to another."""
    generator = torch.Generator(made.device).manual_seed(config.seed)
    labels = torch.arange(config.count) % max(1, made.config.num_classes)
    ends = 1 if config.interpolate is None else 2
    noise = torch.randn(ends, config.count, *made.noise_shape, generator=generator, device=made.device)
    if config.interpolate is None:
        return labels, noise[0]
    return labels.repeat_interleave(config.interpolate), slerp(noise[0], noise[1], config.interpolate).flatten(0, 1)


@command("sample_images")
def main(values: dict[str, Any]) -> None:
    """Sample, and draw the grids beside each other."""
    config = from_mapping(SampleConfig, values)
    with join_processes(config.device) as processes:
        made = Generator.from_pretrained(find_checkpoint(config.checkpoint), processes.device)
        labels, noise = draw_noise(config, made)
        made.sample(labels[:1], 1, noise=noise[:1])  # loads and warms up what is not to be timed
        grids, rates = {}, []
        for steps in config.steps:
            began = time.perf_counter()
            generator = torch.Generator(processes.device).manual_seed(config.seed)  # of what is drawn on the way
            grids[steps] = made.sample(labels, steps, guidance=config.guidance, noise=noise, generator=generator)
            rates.append(f"{len(labels) / (time.perf_counter() - began):,.0f}")
    output = Path(config.output) if config.output else Path(config.checkpoint) / "samples.png"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_bytes(labelled_grids(grids, config.interpolate or config.columns, config.scale))
    what = f"{config.count} images" if config.interpolate is None else f"{config.count} ways from one noise to another"
    steps = ", ".join(map(str, config.steps))
    print(f"{output}: {what} in {steps} steps, from the same noise, at {', '.join(rates)} images/s")


if __name__ == "__main__":
    main()
