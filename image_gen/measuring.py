"""The Fréchet distance of a generator's samples, shared among processes."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from image_gen.features import Features
from image_gen.frechet import Moments, Statistics, frechet_distance
from image_gen.generator import Generator
from image_gen.image_data import ImageSet
from shortcut_policy.training.distributed import Processes
from shortcut_policy.training.seeding import derive_seed


@dataclass(frozen=True)
class Measurement:
    """Statistics of samples, and how many were made in a second by all processes together."""

    statistics: Statistics
    images_per_second: float


def sample_statistics(
    generator: Generator,
    features: Features,
    num_steps: int,
    labels: np.ndarray,
    processes: Processes,
    *,
    batch_size: int,
    guidance: float = 1.0,
    seed: int = 0,
    progress: Callable[[int], None] = lambda count: None,
) -> Measurement:
    """Sample an image for every label and take their statistics.

    Batch b is drawn from the seed (seed, b) and belongs to process b mod count, so that the same images are measured
    by any number of processes.

    Args:
        generator, features: on this process's device.
        num_steps: sampling steps.
        labels: (N,), of the samples.
        processes: those that share the work.
        batch_size: samples at a time.
        guidance: see `Generator.generate`.
        seed: of the noise.
        progress: called with the number of images of each batch.

    Raises:
        ValueError: as `Generator.generate`.
    """
    moments, count, seconds = Moments(features.dim), 0, 0.0
    for batch in range(processes.rank, math.ceil(len(labels) / batch_size), processes.count):
        rows = torch.from_numpy(labels[batch * batch_size : (batch + 1) * batch_size])
        draw = torch.Generator(processes.device).manual_seed(derive_seed(seed, "samples", batch))
        started = time.perf_counter()
        images = generator.sample(rows, num_steps, guidance=guidance, generator=draw)
        seconds += time.perf_counter() - started
        count += len(rows)
        moments.add(features(images))
        progress(len(rows))
    rate = torch.tensor(count / seconds if count else 0.0, device=processes.device)

    def total(sums: torch.Tensor) -> torch.Tensor:
        return processes.sum(sums.to(processes.device))

    return Measurement(moments.statistics(total), float(processes.sum(rate)))


def image_statistics(images: np.ndarray, features: Features, batch_size: int) -> Statistics:
    """Statistics of real images (N, C, H, W) uint8."""
    moments = Moments(features.dim)
    for start in range(0, len(images), batch_size):
        moments.add(features(torch.from_numpy(images[start : start + batch_size])))
    return moments.statistics()


def noise_floor(data: ImageSet, features: Features, count: int, batch_size: int, seed: int = 0) -> float | None:
    """The distance of `count` images of the data, drawn at random, from the rest: what a perfect generator would get.

    None where there are no more than 2 count images.
    """
    if len(data) < 2 * count:
        return None
    order = np.random.default_rng(seed).permutation(len(data))
    first, rest = (image_statistics(data.images[rows], features, batch_size) for rows in (order[:count], order[count:]))
    return frechet_distance(first, rest)
