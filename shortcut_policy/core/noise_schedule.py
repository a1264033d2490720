"""The discrete diffusion process of DDPM, and the coefficients of its samplers; `diffusers` is the tests' oracle.

    x^k = sqrt(abar_k) x_1 + sqrt(1 - abar_k) x_0,  abar_k = prod_{j <= k} (1 - beta_j),  k = 0 .. K - 1

(Ho et al., arXiv 2006.11239; k = K - 1 is the noisiest.) In this project's time, in which t = 0 is noise, index k is
told to the network as t_k = 1 - (k + 1) / K: K t_k is what Diffusion Policy calls K - 1 - k.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Betas = Literal["squared_cosine", "linear"]
Spacing = Literal["trailing", "leading"]


@dataclass(frozen=True)
class DiffusionStep:
    """From index k to the next smaller one that is visited, or to the data: the numbers of one step of a sampler.

    The network's prediction gives the data x_1 and the noise e that x would be made of; then

        x <- data x_1 + point x + epsilon e + noise z,  z ~ N(0, 1)

    Attributes:
        t: told to the network.
        signal: sqrt(abar_k).
        sigma: sqrt(1 - abar_k).
        data, point, epsilon, noise: factors of the four terms.
    """

    t: float
    signal: float
    sigma: float
    data: float
    point: float
    epsilon: float
    noise: float


@dataclass(frozen=True)
class NoiseSchedule:
    """The betas, and what follows from them.

    Args:
        steps: K.
        betas: "squared_cosine" (Nichol & Dhariwal, arXiv 2102.09672; Diffusion Policy's) or "linear" (DDPM's, from
            1e-4 to 0.02).

    Raises:
        ValueError: K is not positive, or the name unknown.
    """

    steps: int = 100
    betas: Betas = "squared_cosine"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"a noise schedule needs at least 1 step, got {self.steps}")
        if self.betas not in ("squared_cosine", "linear"):
            raise ValueError(f"betas must be 'squared_cosine' or 'linear', got {self.betas!r}")

    def alpha_bar(self) -> Tensor:
        """abar_k, (K,) float64 on the CPU."""
        if self.betas == "linear":
            betas = torch.linspace(1e-4, 0.02, self.steps, dtype=torch.float64)
        else:
            share = torch.arange(self.steps + 1, dtype=torch.float64) / self.steps
            level = torch.cos((share + 0.008) / 1.008 * math.pi / 2).square()
            betas = (1 - level[1:] / level[:-1]).clamp(max=0.999)
        return (1 - betas).cumprod(0)

    def time(self, k: Tensor) -> Tensor:
        """t_k of indices k (any shape), float32."""
        return 1 - (k + 1).float() / self.steps

    def indices(self, num_steps: int, spacing: Spacing) -> list[int]:
        """The indices that `num_steps` steps visit, the noisiest first.

        Args:
            spacing: "trailing" begins at K - 1, where the noise is pure (Lin et al., arXiv 2305.08891); "leading" ends
                at 0 and begins below K - 1, as DDIM's code and diffusers by default do.

        Raises:
            ValueError: not between 1 and K.
        """
        if not 1 <= num_steps <= self.steps:
            raise ValueError(
                f"num_steps={num_steps} must lie between 1 and {self.steps}, the steps of the noise schedule"
            )
        if spacing == "leading":
            return [i * (self.steps // num_steps) for i in range(num_steps)][::-1]
        return [round(self.steps - i * self.steps / num_steps) - 1 for i in range(num_steps)]

    def ddim(self, num_steps: int, spacing: Spacing = "trailing") -> list[DiffusionStep]:
        """Steps without noise (Song et al., arXiv 2010.02502, eq. 12 with sigma = 0)."""
        return [
            DiffusionStep(t, a**0.5, (1 - a) ** 0.5, data=b**0.5, point=0.0, epsilon=(1 - b) ** 0.5, noise=0.0)
            for t, a, b in self._pairs(num_steps, spacing)
        ]

    def ddpm(self, num_steps: int, spacing: Spacing = "trailing") -> list[DiffusionStep]:
        """Ancestral steps: mean and variance of q(x^prev | x^k, x_1) (arXiv 2006.11239, eq. 7)."""
        steps = []
        for t, a, b in self._pairs(num_steps, spacing):
            alpha = a / b  # of the whole step
            data, point = b**0.5 * (1 - alpha) / (1 - a), alpha**0.5 * (1 - b) / (1 - a)
            noise = ((1 - b) / (1 - a) * (1 - alpha)) ** 0.5
            steps.append(DiffusionStep(t, a**0.5, (1 - a) ** 0.5, data=data, point=point, epsilon=0.0, noise=noise))
        return steps

    def _pairs(self, num_steps: int, spacing: Spacing) -> list[tuple[float, float, float]]:
        """(t, abar here, abar afterwards) of every step; the last one ends at the data, abar = 1."""
        indices = self.indices(num_steps, spacing)
        levels = self.alpha_bar()
        here = [float(levels[k]) for k in indices]
        return [
            (float(self.time(torch.tensor(k))), a, b) for k, a, b in zip(indices, here, [*here[1:], 1.0], strict=True)
        ]
