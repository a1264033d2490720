"""AdamW with the learning rate as a pure function of the step: there is no scheduler state to lose."""

import math

import torch
from torch import nn

from shortcut_policy.training.config import TrainerConfig


def make_optimizer(network: nn.Module, config: TrainerConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters; only matrices and convolution kernels are decayed."""
    trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=config.learning_rate, betas=config.betas, fused=True)


def learning_rate(step: int, total_steps: int, config: TrainerConfig) -> float:
    """Linear warm-up, then a cosine from `learning_rate` to `final_learning_rate`, for update `step` of a phase.

    The warm-up takes a quarter of the phase at most: a stage of some hundred updates must learn, too.
    """
    warmup = min(config.warmup_steps, total_steps // 4)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    progress = (step - warmup) / max(1, total_steps - warmup)
    cosine = (1.0 + math.cos(math.pi * min(1.0, progress))) / 2.0
    return config.final_learning_rate + (config.learning_rate - config.final_learning_rate) * cosine
