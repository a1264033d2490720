"""Embeddings of the time t and of the step size d."""

import math

import torch
from torch import Tensor, nn


class SinusoidalEmbedding(nn.Module):
    """(B,) -> (B, dim): cosines and sines at geometrically spaced frequencies (Vaswani et al., arXiv 1706.03762).

    Args:
        dim: even number of channels.
        scale: factor on the input; Diffusion Policy's integer steps 0..99 correspond to t in [0, 1] with scale 100.
        max_period: longest wave length over 2 pi, in units of the scaled input.

    Raises:
        ValueError: dim is odd or not positive.
    """

    def __init__(self, dim: int, scale: float = 1.0, max_period: float = 10_000.0) -> None:
        super().__init__()
        if dim < 2 or dim % 2:
            raise ValueError(f"the embedding's dimension must be even and positive, got {dim}")
        frequencies = torch.exp(-math.log(max_period) * torch.arange(dim // 2) / (dim // 2))
        self.register_buffer("frequencies", scale * frequencies, persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Embed values (B,): (B, dim) in float32, or in float64 for such values."""
        angles = values.to(torch.promote_types(values.dtype, torch.float32))[:, None] * self.frequencies
        return torch.cat([angles.cos(), angles.sin()], dim=-1)


class StepSizeEmbedding(nn.Module):
    """(B,) step sizes in [0, 1] -> (B, dim): sinusoids of the level log2(1/d); d = 0 has a learned vector of its own.

    The level is continuous, so that sizes off the dyadic grid are embedded between their neighbours.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.level = SinusoidalEmbedding(dim)
        self.zero = nn.Parameter(torch.randn(dim) / math.sqrt(2.0))  # as large as a sinusoid's root mean square

    def forward(self, d: Tensor) -> Tensor:
        """Embed d (B,): (B, dim)."""
        is_zero = d <= 0
        level = -torch.log2(torch.where(is_zero, 1.0, d))
        return torch.where(is_zero[:, None], self.zero, self.level(level))


class TimeStepEmbedding(nn.Module):
    """(t, d) -> (B, dim): the sum of an MLP on the embedding of t and one on the embedding of d.

    The MLPs are Diffusion Policy's step encoder: dim -> 4 dim -> dim with Mish.
    """

    def __init__(self, dim: int, time_scale: float = 100.0) -> None:
        super().__init__()
        self.time = nn.Sequential(SinusoidalEmbedding(dim, time_scale), *_mlp(dim))
        self.step_size = nn.Sequential(StepSizeEmbedding(dim), *_mlp(dim))

    def forward(self, t: Tensor, d: Tensor) -> Tensor:
        """Embed t and d (B,): (B, dim)."""
        return self.time(t) + self.step_size(d)


def _mlp(dim: int) -> tuple[nn.Module, ...]:
    return nn.Linear(dim, 4 * dim), nn.Mish(), nn.Linear(4 * dim, dim)
