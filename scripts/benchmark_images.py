"""What a shortcut update of a DiT costs, how fast it samples, and how well the device is used.

    python scripts/benchmark_images.py device=cuda network=dit_b2 channels=4 size=32 classes=1000 trainer.precision=bf16

Everything is timed in turns, so that a noisy machine is noisy for all. Random images: the cost depends on shapes alone.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra_command import command
from timing import time_in_turns
from torch.utils.flop_counter import FlopCounterMode

from image_gen.generator import Generator, GeneratorConfig
from image_gen.image_data import ImageBatches, ImageSet
from image_gen.image_speed import ImageSpeed, image_speed_table
from shortcut_policy.config import Component, from_mapping, to_mapping
from shortcut_policy.core.network import BoundNetwork
from shortcut_policy.core.objectives.base import Batch
from shortcut_policy.core.objectives.shortcut import ShortcutDraw
from shortcut_policy.provenance import current_command, current_commit, describe_hardware, installed_versions
from shortcut_policy.training.config import TrainerConfig
from shortcut_policy.training.distributed import join_processes
from shortcut_policy.training.loop import Trainer
from shortcut_policy.training.run_folder import write_json


@dataclass(frozen=True)
class BenchmarkConfig:
    """The values of `configs/benchmark_images.yaml`."""

    network: Component
    objective: Component
    trainer: TrainerConfig
    channels: int
    size: int
    classes: int
    steps: tuple[int, ...]
    count: int
    repeats: int
    peak_tflops: float | None
    device: str
    result: str | None
    overwrite: bool

    def __post_init__(self) -> None:
        if not self.steps or min(*self.steps, self.count, self.repeats) < 1:
            raise ValueError(
                f"steps, count and repeats must be positive, got {list(self.steps)}, {self.count} and {self.repeats}"
            )
        if self.peak_tflops is not None and self.peak_tflops <= 0:
            raise ValueError(f"peak_tflops must be positive or null, got {self.peak_tflops}")
        if self.result and Path(self.result).exists() and not self.overwrite:
            raise FileExistsError(f"{self.result} exists: choose another result=, or say overwrite=true")


def matrix_product(device: torch.device, precision: str) -> tuple[Callable[[], object], float]:
    """A large matrix product in the training's precision, and its operations."""
    side = 8192 if device.type == "cuda" else 1024
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    first, second = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    return lambda: first @ second, 2.0 * side**3


@dataclass(frozen=True)
class Bench:
    """What is timed."""

    generator: Generator
    trainer: Trainer
    batch: Batch
    draw: ShortcutDraw
    precision: str

    @property
    def device(self) -> torch.device:
        """Where everything lies."""
        return self.generator.device

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16")

    def update(self) -> None:
        """The trainer's own update."""
        self.trainer.update(self.trainer.phase_at(0)[0], 0)

    def forward_backward(self) -> None:
        """The bare network on the batch."""
        self.generator.network.zero_grad(set_to_none=True)
        with self._autocast():
            prediction = BoundNetwork(self.generator.network, self.batch.condition)(
                self.draw.noise, self.draw.t, self.draw.d
            )
            loss = (prediction.float() - self.batch.data).square().mean()
        loss.backward()

    @torch.no_grad()
    def bootstrap_forwards(self) -> None:
        """The two half steps of the bootstrap rows."""
        rows = self.draw.bootstrap.nonzero().squeeze(1).to(self.device)
        with self._autocast():
            target = BoundNetwork(self.trainer.ema_network, self.batch.condition, self.batch.null_condition).rows(rows)
            scale = self.generator.config.objective.options.get("bootstrap_guidance", 1.0)
            predict = target if scale == 1.0 else target.guided(scale)
            for _ in range(2):
                predict(self.draw.noise[rows], self.draw.t[rows], self.draw.d[rows])

    def sample(self, steps: int, count: int) -> None:
        """Images from noise."""
        labels = torch.arange(count) % max(1, self.generator.config.num_classes)
        with self._autocast():
            self.generator.generate(labels, steps)


def prepare(config: BenchmarkConfig, processes: Any, folder: str) -> Bench:
    """Generator, trainer and a batch of random images.

    Raises:
        ValueError: the objective is not the shortcut's.
    """
    options = {"network": config.network, "objective": config.objective}
    made = Generator.create(GeneratorConfig(config.channels, config.size, config.classes, **options), 0)
    generator = made.to(processes.device)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (config.trainer.batch_size, config.channels, config.size, config.size)).astype(
        np.uint8
    )
    data = ImageSet(images, rng.integers(0, max(1, config.classes), len(images)), config.classes, "random images")
    batches = ImageBatches(data, config.trainer.batch_size, device=processes.device)
    trainer = Trainer(
        generator.network,
        generator.objective,
        batches.batch,
        config.trainer,
        output=folder,
        save_model=generator.save_pretrained,
        processes=processes,
    )
    batch = batches.batch(0)
    draw = generator.objective.draw(batch.data.shape, 0.0, torch.Generator(processes.device).manual_seed(0))
    if not isinstance(draw, ShortcutDraw) or not draw.bootstrap.any():
        raise ValueError("this benchmark times a shortcut update with bootstrap rows: use objective=shortcut")
    return Bench(generator, trainer, batch, draw, config.trainer.precision)


@command("benchmark_images")
def main(values: dict[str, Any]) -> None:
    """Time, count, print."""
    for part in ("network", "objective"):
        name = values[part].pop("name")
        values[part] = {"name": name, "options": values[part]}
    config = from_mapping(BenchmarkConfig, values)
    with join_processes(config.device) as processes, tempfile.TemporaryDirectory() as folder:
        device = processes.device
        bench = prepare(config, processes, folder)
        network = bench.generator.network
        checkpointing, network.checkpointing = network.checkpointing, False  # what is computed again is not the model's
        with FlopCounterMode(display=False) as counter:
            bench.forward_backward()
            bench.bootstrap_forwards()
        flops = float(counter.get_total_flops())
        network.checkpointing = checkpointing
        product, product_flops = matrix_product(device, config.trainer.precision)
        parts: dict[str, Callable[[], object]] = {
            "shortcut update": bench.update,
            "forward + backward": bench.forward_backward,
            "two bootstrap forwards": bench.bootstrap_forwards,
            "matrix product": product,
        }
        for steps in config.steps:
            parts[f"sample in {steps}"] = lambda steps=steps: bench.sample(steps, config.count)
        milliseconds = time_in_turns(parts, config.repeats, device)

    peak = config.peak_tflops or product_flops / milliseconds["matrix product"] / 1e9
    speed = {str(steps): round(1e3 * config.count / milliseconds[f"sample in {steps}"], 1) for steps in config.steps}
    result = ImageSpeed(
        name=Path(config.result).stem if config.result else "images",
        network=config.network,
        objective=config.objective,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        batch_size=config.trainer.batch_size,
        precision=config.trainer.precision,
        compile=config.trainer.compile,
        images=(config.channels, config.size, config.size),
        count=config.count,
        repeats=config.repeats,
        milliseconds_p50={name: round(value, 3) for name, value in milliseconds.items()},
        ratio=round(milliseconds["shortcut update"] / milliseconds["forward + backward"], 4),
        flops_per_update=flops,
        peak_tflops=round(peak, 4),
        peak="as given" if config.peak_tflops else "of a large matrix product",
        utilisation=round(flops / milliseconds["shortcut update"] / 1e9 / peak, 4),
        images_per_second=speed,
        command=current_command(),
        commit=current_commit(),
        hardware=describe_hardware(device),
        versions=installed_versions(),
    )
    print(image_speed_table([result]))
    if config.result:
        target = Path(config.result)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_json(target, to_mapping(result))


if __name__ == "__main__":
    main()
