"""Flow matching (Lipman et al., arXiv 2210.02747): regress the velocity of the straight path; d is always 0.

L = E || s(x_t, t, 0) - v ||^2
"""

from dataclasses import dataclass

import torch

from shortcut_policy.core.interpolant import Interpolant
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
from shortcut_policy.core.sampler import EulerSampler, Step
from shortcut_policy.core.steps import uniform_schedule


@dataclass(frozen=True)
class FlowMatching:
    """The flow-matching objective, sampled by Euler's method.

    Args:
        sigma_min: noise left at t = 1, in [0, 1).
        condition_dropout: share of rows trained on the null condition, in [0, 1).
        sigma_data: of the `Preconditioning`; None for none.
    """

    sigma_min: float = 0.0
    condition_dropout: float = 0.0
    sigma_data: float | None = None

    def __post_init__(self) -> None:
        Interpolant(self.sigma_min)
        Preconditioning(self.sigma_data)
        if not 0.0 <= self.condition_dropout < 1.0:
            raise ValueError(f"condition_dropout must lie in [0, 1), got {self.condition_dropout}")

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing but the student."""
        return frozenset()

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """One phase."""
        return (Phase("flow_matching", total_steps, self),)

    def draw(self, shape: torch.Size, progress: float, generator: torch.Generator) -> Draw:
        """Gaussian noise, t uniform in [0, 1), d = 0."""
        rows = shape[0]
        return Draw(
            noise=torch.randn(shape, generator=generator, device=generator.device),
            t=torch.rand(rows, generator=generator, device=generator.device),
            d=torch.zeros(rows, device=generator.device),
            drop=draw_dropped_rows(rows, self.condition_dropout, generator),
        )

    def loss(self, nets: Networks, batch: Batch, draw: Draw) -> Loss:
        """|| s(x_t, t, 0) - v ||^2, mean over each row."""
        path = Interpolant(self.sigma_min)
        x_t = path.point(draw.noise, batch.data, draw.t)
        student = nets.student if draw.drop is None else nets.student.drop(draw.drop)
        s = Preconditioning(self.sigma_data).velocity(student)
        error = s(x_t, draw.t, draw.d).float() - path.velocity(draw.noise, batch.data)
        per_row = mean_square(error, batch.loss_mask)
        return Loss(per_row, {"flow_loss": Mean.over(per_row, torch.ones_like(per_row))})

    def sampler(self, num_steps: int) -> EulerSampler:
        """Equal steps, each told d = 0."""
        return EulerSampler(
            [Step(t, size, 0.0) for t, size in uniform_schedule(num_steps)], Preconditioning(self.sigma_data)
        )
