"""The straight path from noise to data: the only file in which its formula stands.

    x_t = (1 - (1 - sigma_min) t) x_0 + t x_1        x_0: noise, x_1: data, t in [0, 1]
    v   = d x_t / d t = x_1 - (1 - sigma_min) x_0

(arXiv 2410.12557, section 2; sigma_min = 0 in the paper's text, 1e-5 in its code.)
"""

from dataclasses import dataclass

from torch import Tensor


def expand_rows(values: Tensor, like: Tensor) -> Tensor:
    """Shape `values` (B,) as (B, 1, ..., 1) so that it multiplies the rows of `like` (B, *S)."""
    return values.reshape(-1, *([1] * (like.ndim - 1))).to(like.dtype)


@dataclass(frozen=True)
class Interpolant:
    """The path x_t and its velocity.

    Args:
        sigma_min: standard deviation of the noise left at t = 1, in [0, 1).
    """

    sigma_min: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.sigma_min < 1.0:
            raise ValueError(f"sigma_min must lie in [0, 1), got {self.sigma_min}")

    def point(self, noise: Tensor, data: Tensor, t: Tensor) -> Tensor:
        """x_t for noise and data (B, *S) and times t (B,)."""
        t = expand_rows(t, data)
        return (1.0 - (1.0 - self.sigma_min) * t) * noise + t * data

    def velocity(self, noise: Tensor, data: Tensor) -> Tensor:
        """d x_t / d t (B, *S); it does not depend on t."""
        return data - (1.0 - self.sigma_min) * noise
