"""Ways from one noise to another."""

import torch
from torch import Tensor


def slerp(first: Tensor, last: Tensor, count: int) -> Tensor:
    """Points (B, count, *S) on the great circles from first to last (B, *S), ends included.

    On a straight line the points in between would be smaller than noise ever is; these are not.
    """
    rows = len(first)
    directions = [
        noise.reshape(rows, -1) / noise.reshape(rows, -1).norm(dim=1, keepdim=True) for noise in (first, last)
    ]
    angle = (directions[0] * directions[1]).sum(1).clamp(-1, 1).acos()
    share = torch.linspace(0, 1, count, device=first.device, dtype=first.dtype)
    shape = (rows, count, *[1] * (first.ndim - 1))
    weights = [torch.sin(part * angle[:, None]) / angle.sin()[:, None] for part in (1 - share, share)]
    return weights[0].reshape(shape) * first[:, None] + weights[1].reshape(shape) * last[:, None]
