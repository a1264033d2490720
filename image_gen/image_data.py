"""Images with labels in RAM, and batches of them."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shortcut_policy.core.objectives.base import Batch
from shortcut_policy.data.epoch_order import EpochOrder


@dataclass(frozen=True)
class ImageSet:
    """Images of one size.

    Attributes:
        images: (N, C, H, W) uint8.
        labels: (N,) int64 in 0 ... K - 1.
        num_classes: K.
        source: where they come from, in words.
    """

    images: np.ndarray
    labels: np.ndarray
    num_classes: int
    source: str

    def __post_init__(self) -> None:
        if self.images.dtype != np.uint8 or self.images.ndim != 4 or self.images.shape[2] != self.images.shape[3]:
            raise ValueError(
                f"{self.source}: images must be square, (N, C, H, H) uint8, got {self.images.shape} {self.images.dtype}"
            )
        if self.labels.shape != (len(self.images),):
            raise ValueError(f"{self.source}: {len(self.images)} images have labels of shape {self.labels.shape}")
        if len(self.labels) and not 0 <= self.labels.min() <= self.labels.max() < self.num_classes:
            raise ValueError(
                f"{self.source}: labels run from {self.labels.min()} to {self.labels.max()}, outside 0 ... "
                f"{self.num_classes - 1}"
            )

    def __len__(self) -> int:
        return len(self.images)


def load_digits() -> ImageSet:
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn brings along.

    Raises:
        ImportError: scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise ImportError("dataset=digits needs the extra 'image': pip install -e '.[image]'") from error
    data = load()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)[:, None]
    return ImageSet(images, data.target.astype(np.int64), 10, "scikit-learn's digits")


def to_network(images: Tensor) -> Tensor:
    """uint8 images as the network sees them: float32 in [-1, 1]."""
    return images.float() / 127.5 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """The inverse, what lies outside cut off."""
    return ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)


class ImageBatches:
    """Batches of an image set that lies on a device, in the order of `EpochOrder`.

    Args:
        data: the images.
        batch_size: B, rows of the global batch.
        seed: of the order.
        device: where the tensors live.
    """

    def __init__(self, data: ImageSet, batch_size: int, seed: int = 0, device: torch.device | str = "cpu") -> None:
        self._order = EpochOrder(len(data), batch_size, seed)
        self._images = torch.from_numpy(data.images).to(device)
        self._labels = torch.from_numpy(data.labels).to(device)
        self._null = data.num_classes

    def batch(self, step: int, rows: slice = slice(None)) -> Batch:
        """The rows (a slice of 0 ... B - 1) of batch number `step`: images (B, C, H, W), labels, null labels."""
        index = self._order.batch(step, rows).to(self._images.device)
        labels = self._labels[index]
        return Batch(to_network(self._images[index]), labels, torch.full_like(labels, self._null))
