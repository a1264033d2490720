"""The Fréchet distance between two sets of features, each taken for a Gaussian (Heusel et al., arXiv 1706.08500).

d^2 = |m_1 - m_2|^2 + tr(C_1 + C_2 - 2 (C_1 C_2)^(1/2))
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Statistics:
    """Of D features: mean (D,) and covariance (D, D), float64."""

    mean: np.ndarray
    covariance: np.ndarray


class Moments:
    """Counts, sums and products of features, which add up over batches and processes.

    Args:
        dim: D.
    """

    def __init__(self, dim: int) -> None:
        self._sums = torch.zeros(1 + dim + dim * dim, dtype=torch.float64)
        self._dim = dim

    def add(self, features: Tensor) -> None:
        """Add the rows of features (B, D)."""
        rows = features.detach().double().cpu()
        count = torch.tensor([len(rows)], dtype=torch.float64)
        self._sums += torch.cat([count, rows.sum(0), (rows.T @ rows).flatten()])

    def __add__(self, other: "Moments") -> "Moments":
        """Those of the rows of both."""
        both = Moments(self._dim)
        both._sums = self._sums + other._sums
        return both

    def summed(self, total: Callable[[Tensor], Tensor], device: torch.device) -> "Moments":
        """Those of the rows of all processes.

        Args:
            total: adds a tensor on `device` up over the processes.
        """
        everywhere = Moments(self._dim)
        everywhere._sums = total(self._sums.to(device, copy=True)).cpu()
        return everywhere

    def statistics(self) -> Statistics:
        """Mean and unbiased covariance of all rows.

        Raises:
            ValueError: there are fewer than two rows.
        """
        sums = self._sums.numpy()
        count, mean = sums[0], sums[1 : 1 + self._dim] / max(sums[0], 1.0)
        if count < 2:
            raise ValueError(f"a covariance needs at least two images, got {int(count)}")
        products = sums[1 + self._dim :].reshape(self._dim, self._dim)
        return Statistics(mean, (products - count * np.outer(mean, mean)) / (count - 1))


def frechet_distance(first: Statistics, second: Statistics) -> float:
    """d^2, which is what papers call the FID.

    The trace of (C_1 C_2)^(1/2) is that of (C_1^(1/2) C_2 C_1^(1/2))^(1/2), which is symmetric: no complex numbers.

    Raises:
        ValueError: the numbers of features differ.
    """
    if first.mean.shape != second.mean.shape:
        raise ValueError(
            f"statistics of {len(first.mean)} and of {len(second.mean)} features cannot be compared: they come from "
            "different networks"
        )
    values, vectors = np.linalg.eigh(first.covariance)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ second.covariance @ root).clip(min=0)).sum()
    difference = first.mean - second.mean
    return float(difference @ difference + np.trace(first.covariance) + np.trace(second.covariance) - 2 * cross)


def read_statistics(path: str | Path) -> Statistics:
    """Statistics of a data set as others publish them: an npz file with `mu` and `sigma`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it holds something else.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"no statistics at {path}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            mean, covariance = (np.asarray(archive[name], dtype=np.float64) for name in ("mu", "sigma"))
    except (KeyError, ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path} is no npz file with mu and sigma ({error})") from error
    if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
        raise ValueError(f"{path}: mu has shape {mean.shape} and sigma {covariance.shape}")
    return Statistics(mean, covariance)
