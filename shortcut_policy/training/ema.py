"""Exponential moving averages of a network's weights."""

import copy

import torch
from torch import nn

from shortcut_policy.training.config import EmaConfig
from shortcut_policy.training.sharding import local


class Ema:
    """A frozen copy of a network whose weights follow the original's: w <- decay w + (1 - decay) w_original.

    Args:
        network: the original.
        config: the decay and its warm-up.
    """

    def __init__(self, network: nn.Module, config: EmaConfig) -> None:
        self.config = config
        self.updates = 0
        self.module = copy.deepcopy(network).eval().requires_grad_(False)

    def decay(self) -> float:
        """The decay of the next update."""
        if self.config.warmup_power == 0.0:
            return self.config.decay
        return min(self.config.decay, 1.0 - (1.0 + self.updates) ** -self.config.warmup_power)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Follow the network by one update; buffers are copied."""
        averages, values = ([local(p) for p in module.parameters()] for module in (self.module, network))
        torch._foreach_lerp_(averages, values, 1.0 - self.decay())
        for average, value in zip(self.module.buffers(), network.buffers(), strict=True):
            average.copy_(value)
        self.updates += 1
