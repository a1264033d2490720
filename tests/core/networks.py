"""Networks with a known answer, for tests of objectives and samplers."""

import torch
from torch import Tensor, nn

from shortcut_policy.core.interpolant import expand_rows
from shortcut_policy.core.network import BoundNetwork


class SinglePoint(nn.Module):
    """The exact shortcut of a data set that is one point x*: s(x, t, d) = (x* - x) / (1 - t) for every d."""

    def __init__(self, point: Tensor) -> None:
        super().__init__()
        self.point = point

    def encode(self, condition):
        return condition

    def forward(self, x, t, d, encoded):
        return (self.point - x) / (1 - expand_rows(t, x))


class Recorder(nn.Module):
    """A small nonlinear network of everything it is given, which remembers how it was called."""

    def __init__(self, seed: int = 0, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(4, generator=generator, dtype=dtype))
        self.calls: list[tuple[Tensor, Tensor, Tensor]] = []
        self.encoded = 0

    def encode(self, condition):
        self.encoded += 1
        return condition

    def forward(self, x, t, d, encoded):
        self.calls.append((x, t, d))
        a, b, c, e = self.weight
        level = 0.0 if encoded is None else expand_rows(encoded, x)
        return torch.tanh(a * x + b * expand_rows(t, x) + c * expand_rows(d, x)) + e * level * x


def bind(network: nn.Module, condition=None, null=None) -> BoundNetwork:
    return BoundNetwork(network, condition, null)
