"""Consistency distillation (Song et al., arXiv 2303.01469, algorithm 2): a flow is trained, then its end points agree.

    L = E || s(x_t, t, 0) - sg[ (f-(x_{t+d}, t + d) - x_t) / (1 - t) ] ||^2,  f(x, t) = x + (1 - t) s(x, t, 0)
    with x_{t+d} = x_t + d s_teacher(x_t, t, 0)

The teacher, a frozen flow, says where the path leads for one smallest step d; the end point that the student sees from
x_t is made to agree with what its EMA sees from there. The network is always told d = 0.
"""

from dataclasses import dataclass

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
    check_teacher,
    mean_square,
    teacher_steps,
)
from shortcut_policy.core.objectives.flow_matching import FlowMatching
from shortcut_policy.core.preconditioning import Preconditioning
from shortcut_policy.core.sampler import ConsistencySampler, end_point
from shortcut_policy.core.steps import DyadicSteps, draw_grid_times, uniform_schedule


@dataclass(frozen=True)
class ConsistencyDistillation:
    """The objective, sampled by noising the end point again.

    Args:
        base_steps: number of the teacher's steps, a power of two.
        teacher_fraction: share of the updates that train the teacher by flow matching, in [0, 1); 0: it is given.
        guidance: scale of classifier-free guidance of the teacher; 1 is none.
        condition_dropout: share of the rows of the teacher's training on the null condition, in [0, 1).
        sigma_data: of the `Preconditioning` of both; None for none.
    """

    base_steps: int = 128
    teacher_fraction: float = 0.5
    guidance: float = 1.0
    condition_dropout: float = 0.0
    sigma_data: float | None = None

    def __post_init__(self) -> None:
        DyadicSteps(self.base_steps)
        self._flow()
        check_teacher(self.teacher_fraction, self.guidance, self.condition_dropout)

    @property
    def needs(self) -> frozenset[Need]:
        """The teacher, and the EMA for the targets."""
        return frozenset({"teacher", "target_ema"})

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """The teacher's training, unless it is given; then the student's, which begins as the teacher."""
        first = teacher_steps(self.teacher_fraction, total_steps)
        if first == 0:
            return (Phase("consistency_distillation", total_steps, self, student="teacher"),)
        return (
            Phase("teacher", first, self._flow()),
            Phase("consistency_distillation", total_steps - first, self, teacher="ema", student="teacher"),
        )

    def draw(self, shape: torch.Size, progress: float, generator: torch.Generator) -> Draw:
        """Gaussian noise, t on the grid of the smallest step."""
        levels = torch.full(shape[:1], DyadicSteps(self.base_steps).finest_level, device=generator.device)
        return Draw(
            noise=torch.randn(shape, generator=generator, device=generator.device),
            t=draw_grid_times(levels, generator),
            d=torch.zeros(shape[0], device=generator.device),
            drop=None,
        )

    def loss(self, nets: Networks, batch: Batch, draw: Draw) -> Loss:
        """The velocity from x_t to the end point seen from one step of the teacher further, regressed."""
        if nets.teacher is None or nets.target is None:
            raise ValueError("consistency distillation needs a teacher and a target network")
        teacher = nets.teacher if self.guidance == 1.0 else nets.teacher.guided(self.guidance)
        velocity, d = Preconditioning(self.sigma_data).velocity, 1.0 / self.base_steps
        x_t = Interpolant().point(draw.noise, batch.data, draw.t)
        with torch.no_grad():
            x_next = x_t + d * velocity(teacher)(x_t, draw.t, draw.d).to(x_t.dtype)
            end = end_point(velocity(nets.target), x_next, draw.t + d)
            wanted = (end - x_t) / expand_rows(1.0 - draw.t, x_t)
        error = velocity(nets.student)(x_t, draw.t, draw.d).to(wanted.dtype) - wanted
        per_row = mean_square(error, batch.loss_mask)
        return Loss(per_row, {"consistency_loss": Mean.over(per_row, torch.ones_like(per_row))})

    def sampler(self, num_steps: int) -> ConsistencySampler:
        """f at equally spaced times from 0."""
        return ConsistencySampler([t for t, _ in uniform_schedule(num_steps)], Preconditioning(self.sigma_data))

    def _flow(self) -> FlowMatching:
        return FlowMatching(condition_dropout=self.condition_dropout, sigma_data=self.sigma_data)
