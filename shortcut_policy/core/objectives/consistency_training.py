"""Consistency training (Song et al., arXiv 2303.01469, algorithm 3) on the straight path.

    L = E || s(x_t, t, 0) - sg[ (f-(x_{t+d}, t + d) - x_t) / (1 - t) ] ||^2,  f(x, t) = x + (1 - t) s(x, t, 0)

x_t and x_{t+d} lie on the line from the same noise to the same data: no teacher is asked where the path leads, and the
end point f is made to agree along it. d is halved as the training goes on, from 1 (where f- is the data themselves) to
the smallest step; the network is always told d = 0.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch

from shortcut_policy.core.interpolant import Interpolant, expand_rows
from shortcut_policy.core.objectives.base import (
    Batch,
    Draw,
    Loss,
    Mean,
    Need,
    Networks,
    Phase,
    draw_dropped_rows,
    mean_square,
)
from shortcut_policy.core.preconditioning import Preconditioning
from shortcut_policy.core.sampler import ConsistencySampler, end_point
from shortcut_policy.core.steps import DyadicSteps, draw_grid_times, uniform_schedule


@dataclass(frozen=True)
class ConsistencyDraw(Draw):
    """A draw that also holds the distance d of the two points that are to agree, (B,)."""

    distance: torch.Tensor


@dataclass(frozen=True)
class ConsistencyTraining:
    """The objective, sampled by noising the end point again.

    Args:
        base_steps: number of smallest steps, a power of two; the training has log2(base_steps) + 1 stages of equal
            length, with d = 1, 1/2, ..., 1/base_steps.
        target: whose f- is the target: "ema" or "online", the student itself.
        condition_dropout: share of rows trained on the null condition, in [0, 1).
        sigma_data: of the `Preconditioning`; None for none.
    """

    base_steps: int = 128
    target: Literal["ema", "online"] = "ema"
    condition_dropout: float = 0.0
    sigma_data: float | None = None

    def __post_init__(self) -> None:
        DyadicSteps(self.base_steps)
        Preconditioning(self.sigma_data)
        if not 0.0 <= self.condition_dropout < 1.0:
            raise ValueError(f"condition_dropout must lie in [0, 1), got {self.condition_dropout}")
        if self.target not in ("ema", "online"):
            raise ValueError(f"target must be one of ema, online, got {self.target!r}")

    @property
    def needs(self) -> frozenset[Need]:
        """The target EMA, unless the student is its own target."""
        return frozenset({"target_ema"}) if self.target == "ema" else frozenset()

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """One phase; its stages are a matter of `draw`."""
        return (Phase("consistency_training", total_steps, self),)

    def draw(self, shape: torch.Size, progress: float, generator: torch.Generator) -> ConsistencyDraw:
        """Gaussian noise, d of the stage, t on the grid of d."""
        finest = DyadicSteps(self.base_steps).finest_level
        level = min(math.floor(progress * (finest + 1)), finest)
        levels = torch.full(shape[:1], level, device=generator.device)
        return ConsistencyDraw(
            noise=torch.randn(shape, generator=generator, device=generator.device),
            t=draw_grid_times(levels, generator),
            d=torch.zeros(shape[0], device=generator.device),
            drop=draw_dropped_rows(shape[0], self.condition_dropout, generator),
            distance=torch.exp2(-levels.float()),
        )

    def loss(self, nets: Networks, batch: Batch, draw: Draw) -> Loss:
        """The velocity from x_t to the target's end point, regressed."""
        if not isinstance(draw, ConsistencyDraw):
            raise TypeError(f"consistency training needs its own draw, got {type(draw).__name__}")
        target = nets.target if self.target == "ema" else nets.student
        if target is None:
            raise ValueError("target is 'ema' but no target network was given")
        student = nets.student
        if draw.drop is not None:
            student, target = student.drop(draw.drop), target.drop(draw.drop)
        student.encoded()  # with its gradient, before the target, where it is the same, asks for it without
        path, velocity = Interpolant(), Preconditioning(self.sigma_data).velocity
        x_t, later = path.point(draw.noise, batch.data, draw.t), draw.t + draw.distance
        with torch.no_grad():
            end = end_point(velocity(target), path.point(draw.noise, batch.data, later), later)
            wanted = (end - x_t) / expand_rows(1.0 - draw.t, x_t)
        error = velocity(student)(x_t, draw.t, draw.d).to(wanted.dtype) - wanted
        per_row = mean_square(error, batch.loss_mask)
        return Loss(per_row, {"consistency_loss": Mean.over(per_row, torch.ones_like(per_row))})

    def sampler(self, num_steps: int) -> ConsistencySampler:
        """f at equally spaced times from 0."""
        return ConsistencySampler([t for t, _ in uniform_schedule(num_steps)], Preconditioning(self.sigma_data))
