"""A mixture of Gaussians in the plane, and how far samples are from it: where an objective can be seen and measured."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianRing:
    """Equally likely Gaussians on a circle, as large that each coordinate has variance 1.

    Args:
        modes: how many, at least 2.
        deviation: standard deviation of each, in (0, 1).

    Raises:
        ValueError: a value out of range; the message quotes it.
    """

    modes: int = 8
    deviation: float = 0.15

    def __post_init__(self) -> None:
        if self.modes < 2:
            raise ValueError(f"modes must be at least 2, got {self.modes}")
        if not 0.0 < self.deviation < 1.0:
            raise ValueError(f"deviation must lie in (0, 1), got {self.deviation}")

    @property
    def radius(self) -> float:
        """Of the circle: a coordinate of a point on it has variance radius^2 / 2."""
        return math.sqrt(2.0 * (1.0 - self.deviation**2))

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw `count` points (count, 2), float32."""
        angle = torch.randint(self.modes, (count,), generator=generator) * (2.0 * math.pi / self.modes)
        centre = self.radius * torch.stack([angle.cos(), angle.sin()], dim=1)
        return centre + self.deviation * torch.randn(count, 2, generator=generator)


def energy_distance(x: Tensor, y: Tensor) -> float:
    """2 E|X - Y| - E|X - X'| - E|Y - Y'| of two samples (n, D), (m, D), without bias.

    It is 0 exactly if both have the same distribution (Székely & Rizzo, "Energy statistics", 2013), and the estimate
    then scatters around 0.

    Raises:
        ValueError: a sample has fewer than two points.
    """
    if min(len(x), len(y)) < 2:
        raise ValueError(f"an energy distance needs at least two points of each kind, got {len(x)} and {len(y)}")
    x, y = x.double(), y.double()
    between, within_x, within_y = torch.cdist(x, y).mean(), torch.pdist(x).mean(), torch.pdist(y).mean()
    return float(2.0 * between - within_x - within_y)
