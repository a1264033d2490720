"""Reflow (Liu et al., arXiv 2209.03003): a second flow is trained on the pairs that a first one makes.

    L = E || s(x_t, t, 0) - (x_1 - x_0) ||^2,  x_1 = where the teacher leads the noise x_0

The lines between such pairs hardly cross, so that the second flow is nearly straight and few of its steps suffice. d is
always 0. Pairs are made as they are needed: no pair is seen twice, and an update pays for the teacher's `pair_steps`
evaluations.
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
    check_teacher,
    mean_square,
    teacher_steps,
)
from shortcut_policy.core.objectives.flow_matching import FlowMatching
from shortcut_policy.core.preconditioning import Preconditioning
from shortcut_policy.core.sampler import EulerSampler


@dataclass(frozen=True)
class Reflow:
    """The objective, sampled by Euler's method.

    Args:
        pair_steps: Euler steps with which the teacher makes a pair.
        teacher_fraction: share of the updates that train the teacher by flow matching, in [0, 1); 0: it is given.
        guidance: scale of classifier-free guidance of the teacher; 1 is none.
        condition_dropout: share of the rows of the teacher's training on the null condition, in [0, 1).
        sigma_data: of the `Preconditioning` of both; None for none.
    """

    pair_steps: int = 16
    teacher_fraction: float = 0.5
    guidance: float = 1.0
    condition_dropout: float = 0.0
    sigma_data: float | None = None

    def __post_init__(self) -> None:
        self._flow()
        if self.pair_steps < 1:
            raise ValueError(f"pair_steps must be positive, got {self.pair_steps}")
        check_teacher(self.teacher_fraction, self.guidance, self.condition_dropout)

    @property
    def needs(self) -> frozenset[Need]:
        """The teacher."""
        return frozenset({"teacher"})

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """The teacher's training, unless it is given; then a new student's."""
        first = teacher_steps(self.teacher_fraction, total_steps)
        if first == 0:
            return (Phase("reflow", total_steps, self),)
        return (
            Phase("teacher", first, self._flow()),
            Phase("reflow", total_steps - first, self, teacher="ema", student="initial"),
        )

    def draw(self, shape: torch.Size, progress: float, generator: torch.Generator) -> Draw:
        """Gaussian noise, t uniform in [0, 1), d = 0."""
        return FlowMatching().draw(shape, progress, generator)

    def loss(self, nets: Networks, batch: Batch, draw: Draw) -> Loss:
        """Flow matching between the noise and where the teacher leads it; of the batch's data, the shape matters."""
        if nets.teacher is None:
            raise ValueError("reflow needs a teacher network")
        teacher = nets.teacher if self.guidance == 1.0 else nets.teacher.guided(self.guidance)
        with torch.no_grad():
            end = self._flow().sampler(self.pair_steps)(teacher, draw.noise)
        path = Interpolant()
        s = Preconditioning(self.sigma_data).velocity(nets.student)
        error = s(path.point(draw.noise, end, draw.t), draw.t, draw.d).to(end.dtype) - path.velocity(draw.noise, end)
        per_row = mean_square(error, batch.loss_mask)
        return Loss(per_row, {"reflow_loss": Mean.over(per_row, torch.ones_like(per_row))})

    def sampler(self, num_steps: int) -> EulerSampler:
        """Equal steps, each told d = 0."""
        return self._flow().sampler(num_steps)

    def _flow(self) -> FlowMatching:
        return FlowMatching(condition_dropout=self.condition_dropout, sigma_data=self.sigma_data)
