"""Images or latents with labels, and batches of them."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from image_gen.array_cache import cached_rows
from image_gen.autoencoders import Autoencoder, weights_hash
from image_gen.image_sources import CorruptImageError, DatasetConfig, ImageSource, decode, open_source
from image_gen.pixels import to_network
from shortcut_policy.core.objectives.base import Batch
from shortcut_policy.data.epoch_order import EpochOrder


class TrainingImages(Protocol):
    """What `ImageBatches` draws from.

    Attributes:
        labels: (N,) int64 in 0 ... K - 1.
        num_classes: K; 0 for images without labels.
        shape: (C, H, W) of what the network sees.
    """

    labels: np.ndarray
    num_classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """See above."""

    def take(self, index: np.ndarray, mirrored: np.ndarray, device: torch.device) -> Tensor:
        """The given images (B, C, H, W) float32, those where `mirrored` (B,) is true with left and right exchanged."""


@dataclass(frozen=True)
class ImageSet:
    """Images of one size, in RAM.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64 in 0 ... K - 1; all 0 where K = 0.
        num_classes: K; 0 for images without labels.
        source: where they come from, in words.
        skipped: how many images could not be decoded and were left out.
    """

    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    source: str
    skipped: int = 0

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[2] != self.images.shape[3]:
            raise ValueError(
                f"{self.source}: images must be square, (N, C, H, H) uint8, got {self.images.shape} {self.images.dtype}"
            )
        if self.labels.shape != (len(self.images),):
            raise ValueError(f"{self.source}: {len(self.images)} images have labels of shape {self.labels.shape}")
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < max(1, self.num_classes):
            raise ValueError(
                f"{self.source}: labels run from {self.labels.min()} to {self.labels.max()}, outside 0 ... "
                f"{self.num_classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.images.shape[1:]
        return channels, height, width

    def take(self, index: np.ndarray, mirrored: np.ndarray, device: torch.device) -> Tensor:
        """See `TrainingImages`."""
        images = torch.from_numpy(self.images[index]).to(device, non_blocking=True)
        flags = torch.from_numpy(mirrored).to(device)[:, None, None, None]
        return to_network(torch.where(flags, images.flip(-1), images))


@dataclass(frozen=True)
class LatentSet:
    """Latents of images and of their mirror images, mapped from disk.

    Attributes:
        latents: (M, 2, C, H, W) float16, with rows of images that could not be decoded.
        rows: (N,) numbers of the rows that hold an image.
        labels, num_classes, source, skipped: as in `ImageSet`.
    """

    latents: np.ndarray
    rows: np.ndarray
    labels: np.ndarray
    num_classes: int
    source: str
    skipped: int

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W)."""
        channels, height, width = self.latents.shape[2:]
        return channels, height, width

    def take(self, index: np.ndarray, mirrored: np.ndarray, device: torch.device) -> Tensor:
        """See `TrainingImages`; the mirrored ones are latents of mirrored images."""
        latents = self.latents[self.rows[index], mirrored.astype(np.int64)]
        return torch.from_numpy(latents).to(device, non_blocking=True).float()


def load_images(config: DatasetConfig, *, progress: bool = True) -> ImageSet:
    """Decode all images; those that cannot be are left out and counted.

    Raises:
        FileNotFoundError, ImportError: the images, or what reads them, are missing.
        OSError: a file cannot be read; it is not counted among those that cannot be decoded.
        ValueError: the table or folder is not what it should be, or no image can be decoded.
    """
    source = open_source(config)
    images = np.empty((len(source), config.channels, config.size, config.size), np.uint8)
    good = np.zeros(len(source), bool)
    bar = tqdm(total=len(source), unit="image", desc=config.name, disable=not progress, mininterval=1.0, leave=False)
    with bar, _decoder(source, config) as decode_all:
        for start in range(0, len(source), 1024):
            numbers = range(start, min(start + 1024, len(source)))
            for index, image in zip(numbers, decode_all(numbers), strict=True):
                if image is not None:
                    images[index], good[index] = image, True
                bar.update()
    _require_images(good, config)
    if not good.all():
        images = images[good]
    return ImageSet(images, source.labels[good], source.num_classes, config.name, int((~good).sum()))


def load_latents(
    config: DatasetConfig, autoencoder: Autoencoder, cache: Path, *, block: int = 256, progress: bool = True
) -> LatentSet:
    """Encode all images and their mirror images, or find what was encoded before in `cache`.

    Args:
        config: the images; their size must be a multiple of the autoencoder's factor.
        autoencoder: what encodes them.
        cache: folder for the latents; other images or weights have other files there.
        block: images at a time; an interruption loses no more than these.
        progress: whether it is shown.

    Raises:
        FileNotFoundError, ImportError, OSError, ValueError: see `load_images`; what is encoded already stays.
    """
    source = open_source(config)
    if config.size % autoencoder.factor or config.channels != 3:
        raise ValueError(
            f"an autoencoder that makes images {autoencoder.factor} times smaller needs RGB images whose size is a "
            f"multiple of it, got dataset.size={config.size} and dataset.channels={config.channels}"
        )
    side = config.size // autoencoder.factor

    def encode(start: int, stop: int) -> np.ndarray:
        latents = np.full((stop - start, 2, autoencoder.channels, side, side), np.nan, np.float16)
        decoded = list(decode_all(range(start, stop)))
        good = [number for number, image in enumerate(decoded) if image is not None]
        if good:
            images = torch.from_numpy(np.stack([decoded[number] for number in good]))
            pair = torch.stack([autoencoder.encode(images), autoencoder.encode(images.flip(-1))], dim=1)
            latents[good] = pair.cpu().numpy()
            if not pair.isfinite().all():
                raise ValueError("the autoencoder makes latents that are NaN or infinite: its weights are damaged")
            if not np.isfinite(latents[good]).all():
                raise ValueError(
                    f"autoencoder.scale={autoencoder.scale} makes latents of up to {pair.abs().max():.3g}, which "
                    "float16 cannot hold: give the scale at which they have a standard deviation of about 1"
                )
        return latents

    identity = {
        "images": source.identity,
        "size": config.size,
        "autoencoder": weights_hash(autoencoder.module),
        "scale": autoencoder.scale,
    }
    shape = (len(source), 2, autoencoder.channels, side, side)
    with _decoder(source, config) as decode_all:
        latents = cached_rows(
            cache, identity, shape, "float16", encode, block=block, title=f"{config.name}_latents", progress=progress
        )
    good = np.isfinite(latents[:, 0, 0, 0, 0])
    _require_images(good, config)
    labels = source.labels[good]
    return LatentSet(latents, np.flatnonzero(good), labels, source.num_classes, config.name, int((~good).sum()))


def left_out(data: ImageSet | LatentSet) -> str:
    """A note about the images that could not be decoded."""
    return f"note: {data.skipped} images of {data.source} cannot be decoded and are left out, {len(data.labels)} remain"


class ImageBatches:
    """Batches of images or latents, in the order of `EpochOrder`.

    Args:
        data: the images.
        batch_size: B, rows of the global batch.
        seed: of the order and of the mirroring.
        device: where the batches go.
        flip: whether half of the images are mirrored.
    """

    def __init__(
        self,
        data: TrainingImages,
        batch_size: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        flip: bool = False,
    ) -> None:
        self._order = EpochOrder(len(data.labels), batch_size, seed)
        self._data, self._device, self._flip = data, torch.device(device), flip

    def batch(self, step: int, rows: slice = slice(None)) -> Batch:
        """The rows (a slice of 0 ... B - 1) of batch number `step`: images (B, C, H, W), labels, null labels."""
        index = self._order.batch(step, rows).numpy()
        mirrored = np.zeros(len(index), bool)
        if self._flip:
            mirrored = np.random.default_rng([self._order.seed, step, 1]).random(self._order.batch_size)[rows] < 0.5
        labels = torch.from_numpy(self._data.labels[index]).to(self._device)
        null = torch.full_like(labels, self._data.num_classes)
        # images without labels all carry the null label
        labels = labels if self._data.num_classes else null
        return Batch(self._data.take(index, mirrored, self._device), labels, null)


@contextmanager
def _decoder(source: ImageSource, config: DatasetConfig) -> Iterator[Callable[[range], Iterator[np.ndarray | None]]]:
    """A function from numbers of images to an iterator of what they hold, None for those that cannot be decoded."""

    def one(index: int) -> np.ndarray | None:
        try:
            return decode(source.read(index), config.size, config.channels)
        except CorruptImageError:
            return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        yield lambda numbers: pool.map(one, numbers)


def _require_images(good: np.ndarray, config: DatasetConfig) -> None:
    if not good.any():
        raise ValueError(f"none of the {len(good)} images of {config.path} can be decoded: is it the right column?")
