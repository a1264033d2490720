"""Statistics of a generator's samples and of real images, the work shared among processes."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from image_gen.features import Features
from image_gen.frechet import Moments, Statistics, frechet_distance
from image_gen.generator import Generator
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
    return Measurement(moments.summed(processes.sum, processes.device).statistics(), float(processes.sum(rate)))


@dataclass(frozen=True)
class RealStatistics:
    """Statistics of all real images, and the distance of some from the rest: what a perfect generator would get."""

    statistics: Statistics
    floor: float | None


def measure_real_images(
    images: np.ndarray, features: Features, count: int, processes: Processes, *, batch_size: int, seed: int = 0
) -> RealStatistics:
    """Take the statistics of real images, in one pass.

    Args:
        images: (N, C, H, W) uint8, the same in all processes.
        features: on this process's device.
        count: how many images, drawn at random, make the floor with the others; None is said of it where there are
            fewer than 2 count.
        processes: those that share the work.
        batch_size: images at a time.
        seed: of that draw.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    parts = np.split(order, [count] if len(images) >= 2 * count else [])
    measured = [_image_moments(images, rows, features, processes, batch_size) for rows in parts]
    floor = frechet_distance(*(part.statistics() for part in measured)) if len(measured) == 2 else None
    return RealStatistics(sum(measured[1:], measured[0]).statistics(), floor)


def _image_moments(
    images: np.ndarray, rows: np.ndarray, features: Features, processes: Processes, batch_size: int
) -> Moments:
    """Moments of some rows of the images; batch b belongs to process b mod count."""
    moments = Moments(features.dim)
    for start in range(processes.rank * batch_size, len(rows), processes.count * batch_size):
        moments.add(features(torch.from_numpy(images[rows[start : start + batch_size]])))
    return moments.summed(processes.sum, processes.device)
