"""What an objective costs: network evaluations, counted by letting it compute its loss."""

from collections import Counter

import torch
from torch import Tensor, nn

from shortcut_policy.core.network import BoundNetwork
from shortcut_policy.core.objectives.base import Batch, Networks, Objective

MOMENTS = 20
"""How many times of a phase are looked at, for what an objective computes may change with its progress."""


class _Counting(nn.Module):
    """Predicts its input and counts the rows that it is asked for."""

    def __init__(self, rows: Counter[str]) -> None:
        super().__init__()
        self._rows = rows

    def encode(self, condition: Tensor) -> Tensor:
        return condition

    def forward(self, x: Tensor, t: Tensor, d: Tensor, encoded: Tensor) -> Tensor:
        self._rows["evaluated"] += len(x)
        return x


def evaluations_per_row(objective: Objective, updates: int, rows: int = 64) -> float:
    """Network evaluations for a row of the batch and an update, averaged over a training.

    A phase that trains a teacher is part of the training. Forward passes are counted, with or without gradient; a
    Jacobian-vector product is one, though it costs about two. The backward pass is not counted.

    Args:
        objective: what is minimised.
        updates: of the training, which its phases divide among themselves.
        rows: of the batch, of which an objective may take shares.
    """
    counted: Counter[str] = Counter()
    network = _Counting(counted)
    total = 0.0
    condition = torch.zeros(rows, 1)
    for phase in objective.phases(updates):
        counted.clear()
        for moment in range(MOMENTS):
            progress = (moment + 0.5) / MOMENTS
            draw = phase.objective.draw(torch.Size((rows, 2)), progress, torch.Generator().manual_seed(0))
            nets = Networks(*(BoundNetwork(network, condition, condition) for _ in range(3)))
            phase.objective.loss(nets, Batch(torch.zeros(rows, 2), condition, condition), draw)
        total += phase.steps * counted["evaluated"] / (MOMENTS * rows)
    return total / updates
