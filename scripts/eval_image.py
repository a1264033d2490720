"""Measure an image generator: `... checkpoint=DIR 'steps=[128,4,1]' count=10000 features=mnist_lenet`.

Under `torchrun` the processes share the samples. Writes result.json and prints the table; `--help` lists all values.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra_command import command
from tqdm import tqdm

from image_gen.features import Features, FeaturesConfig, load_features
from image_gen.frechet import Statistics, frechet_distance, read_statistics
from image_gen.generator import Generator
from image_gen.grid import grid_to_text
from image_gen.image_data import left_out, load_images
from image_gen.image_results import ImageResult, ImageRow, image_table
from image_gen.image_sources import DatasetConfig
from image_gen.measuring import measure_real_images, sample_statistics
from shortcut_policy.config import from_mapping, to_mapping
from shortcut_policy.pretrained import find_checkpoint
from shortcut_policy.provenance import current_command, current_commit, describe_hardware, installed_versions
from shortcut_policy.results import result_paths
from shortcut_policy.training.distributed import Processes, join_processes
from shortcut_policy.training.run_folder import write_json
from shortcut_policy.training.seeding import derive_seed


@dataclass(frozen=True)
class EvalImageConfig:
    """The values of `configs/eval_image.yaml`."""

    checkpoint: str
    features: FeaturesConfig
    steps: tuple[int, ...]
    count: int
    batch_size: int
    guidance: float
    seed: int
    shown: int
    statistics: str | None
    output: str | None
    result: str | None
    overwrite: bool
    progress: bool
    device: str
    reference: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.steps or min(*self.steps, self.batch_size, self.shown) < 1 or self.count < 2:
            raise ValueError(
                f"steps, batch_size and shown must be positive and count at least 2, got {list(self.steps)}, "
                f"{self.batch_size}, {self.shown} and {self.count}"
            )


@dataclass(frozen=True)
class Reference:
    """What samples are compared with: statistics, labels to draw from, the words for it, and its floor."""

    statistics: Statistics
    labels: np.ndarray
    title: str
    floor: float | None


def load_reference(config: EvalImageConfig, made: Generator, features: Features, processes: Processes) -> Reference:
    """The reference: published statistics, or a data set.

    Raises:
        FileNotFoundError, ValueError: it is missing, or does not fit.
    """
    classes = made.config.num_classes
    if config.statistics:
        statistics = read_statistics(config.statistics)
        return Reference(statistics, np.arange(max(1, classes)), Path(config.statistics).name, None)
    if "dataset" not in made.config.metadata:
        raise ValueError(f"{config.checkpoint} does not say its data set: say statistics=FILE.npz")
    dataset = from_mapping(DatasetConfig, {**made.config.metadata["dataset"], **config.reference}, "reference.")
    data = load_images(dataset, progress=config.progress and processes.is_main)
    if data.skipped and processes.is_main:
        print(left_out(data))
    real = measure_real_images(data.images, features, config.count, processes, batch_size=config.batch_size)
    words = f"the {len(data):,} images of {Path(dataset.path).name if dataset.path else dataset.name}"
    return Reference(real.statistics, data.labels, words, real.floor)


def draw_labels(reference: Reference, made: Generator, count: int, seed: int) -> np.ndarray:
    """Labels (count,) as they are distributed in the reference; the null label for a generator without classes."""
    if made.config.num_classes == 0:
        return np.zeros(count, np.int64)
    return np.random.default_rng(seed).choice(reference.labels, count).astype(np.int64)


def show(config: EvalImageConfig, made: Generator, steps: int) -> str:
    """Some samples, as text: labels take turns, and the noise is the same for every number of steps."""
    labels = torch.arange(config.shown) % max(1, made.config.num_classes)
    draw = torch.Generator(made.device).manual_seed(derive_seed(config.seed, "shown"))
    images = made.sample(labels, steps, guidance=config.guidance, generator=draw)
    return grid_to_text(images, columns=max(1, round(config.shown**0.5)))


def measure(config: EvalImageConfig, processes: Processes) -> ImageResult:
    """Sample and compare, for every number of steps."""
    checkpoint = find_checkpoint(config.checkpoint)
    made = Generator.from_pretrained(checkpoint, processes.device)
    made.check_guidance(config.guidance)
    features = load_features(config.features, processes.device)
    reference = load_reference(config, made, features, processes)
    labels = draw_labels(reference, made, config.count, config.seed)
    rows = []
    total = len(config.steps) * config.count
    with tqdm(total=total, unit="image", disable=not (config.progress and processes.is_main), mininterval=1.0) as bar:
        for steps in config.steps:
            measured = sample_statistics(
                made,
                features,
                steps,
                labels,
                processes,
                batch_size=config.batch_size,
                guidance=config.guidance,
                seed=config.seed,
                progress=lambda count: bar.update(count * processes.count),
            )
            distance = frechet_distance(measured.statistics, reference.statistics)
            evaluations = made.objective.sampler(steps).evaluations
            rate = round(measured.images_per_second, 1)
            rows.append(ImageRow(steps, evaluations, round(distance, 4), rate, show(config, made, steps)))

    metadata = made.config.metadata
    training = metadata.get("training", {})
    state = checkpoint / "training_state" / "progress.json"
    imported = {"step": metadata.get("official", {}).get("step", 0), "seconds": 0.0}
    progress = json.loads(state.read_text()) if state.exists() else imported
    name = metadata.get("dataset", {}).get("name", "unknown")
    return ImageResult(
        name=f"{name}_{made.config.objective.name}",
        dataset=name,
        objective=made.config.objective.name,
        options={**to_mapping(made.config), "metadata": {}, "trainer": training.get("trainer", {})},
        parameters=sum(parameter.numel() for parameter in made.network.parameters()),
        updates=progress["step"],
        seconds=round(progress["seconds"], 1),
        train_command=training.get("command", "unknown"),
        train_commit=training.get("commit", "unknown"),
        train_hardware=training.get("hardware", "unknown"),
        command=current_command(),
        commit=current_commit(),
        hardware=describe_hardware(processes.device),
        versions=installed_versions(),
        features=features.title,
        reference=reference.title,
        floor=None if reference.floor is None else round(reference.floor, 4),
        count=config.count,
        seed=config.seed,
        guidance=config.guidance,
        rows=tuple(rows),
    )


@command("eval_image")
def main(values: dict[str, Any]) -> None:
    """Measure, write, print."""
    config = from_mapping(EvalImageConfig, values)
    run = Path(config.checkpoint)
    output = Path(config.output) if config.output else run / "evaluation"
    with join_processes(config.device) as processes:
        targets = result_paths(output, config.result, config.overwrite)
        result = measure(config, processes)
        if processes.is_main:
            for target in targets:
                target.parent.mkdir(parents=True, exist_ok=True)
                write_json(target, to_mapping(result))
            print(image_table([result]))
            print("\n" + ", ".join(f"{row.steps}: {row.images_per_second:,.0f}" for row in result.rows) + " images/s")


if __name__ == "__main__":
    main()
