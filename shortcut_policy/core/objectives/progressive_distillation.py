"""Progressive distillation (Salimans & Ho, arXiv 2202.00512): stage by stage, one step learns to do the work of two.

    L = E || s(x_t, t, 0) - sg[ s_teacher(x_t, t, 0)/2 + s_teacher(x_{t+d}, t + d, 0)/2 ] ||^2
    with x_{t+d} = x_t + d s_teacher(x_t, t, 0)

for t on the grid of the student's steps of size 2d. A flow is the first teacher, with base_steps steps; after every
stage the student becomes the teacher, and half of its steps are left. The network is always told d = 0: it serves the
step size of its stage, in the end one step. More steps than one are outside what it was trained for.
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
from shortcut_policy.core.objectives.shortcut import bootstrap_target
from shortcut_policy.core.preconditioning import Preconditioning
from shortcut_policy.core.sampler import EulerSampler, Step
from shortcut_policy.core.steps import DyadicSteps, draw_grid_times, uniform_schedule


@dataclass(frozen=True)
class HalvingStage:
    """One stage: the teacher's two steps become one.

    Args:
        level: of the student's steps, whose size is 2^-level.
        guidance: scale of classifier-free guidance of the teacher; 1 is none.
        sigma_data: of the `Preconditioning`; None for none.
    """

    level: int
    guidance: float = 1.0
    sigma_data: float | None = None

    @property
    def needs(self) -> frozenset[Need]:
        """The teacher."""
        return frozenset({"teacher"})

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """This stage alone, with a given teacher."""
        return (Phase(f"{2**self.level}_steps", total_steps, self, student="teacher"),)

    def draw(self, shape: torch.Size, progress: float, generator: torch.Generator) -> Draw:
        """Gaussian noise, t on the grid of the student's steps."""
        levels = torch.full(shape[:1], self.level, device=generator.device)
        return Draw(
            noise=torch.randn(shape, generator=generator, device=generator.device),
            t=draw_grid_times(levels, generator),
            d=torch.zeros(shape[0], device=generator.device),
            drop=None,
        )

    def loss(self, nets: Networks, batch: Batch, draw: Draw) -> Loss:
        """The mean velocity of two of the teacher's steps, regressed."""
        if nets.teacher is None:
            raise ValueError("progressive distillation needs a teacher network")
        teacher = nets.teacher if self.guidance == 1.0 else nets.teacher.guided(self.guidance)
        velocity = Preconditioning(self.sigma_data).velocity
        x_t = Interpolant().point(draw.noise, batch.data, draw.t)
        double = torch.full_like(draw.t, 2.0**-self.level)
        always_zero = DyadicSteps(1)  # of a grid of one step, no step is larger than the smallest: d = 0 is told of all
        wanted = bootstrap_target(velocity(teacher), x_t, draw.t, double, always_zero)
        error = velocity(nets.student)(x_t, draw.t, draw.d).to(wanted.dtype) - wanted
        per_row = mean_square(error, batch.loss_mask)
        return Loss(per_row, {"distillation_loss": Mean.over(per_row, torch.ones_like(per_row))})

    def sampler(self, num_steps: int) -> EulerSampler:
        """Equal steps, each told d = 0."""
        steps = [Step(t, size, 0.0) for t, size in uniform_schedule(num_steps)]
        return EulerSampler(steps, Preconditioning(self.sigma_data))


@dataclass(frozen=True)
class ProgressiveDistillation:
    """The objective: a flow, and log2(base_steps) stages of equal length.

    Args:
        base_steps: number of the first teacher's steps, a power of two, at least 2.
        teacher_fraction: share of the updates that train the first teacher by flow matching, in [0, 1); 0: it is given.
        guidance: scale of classifier-free guidance of the first teacher, which the stages inherit; 1 is none.
        condition_dropout: share of the rows of the first teacher's training on the null condition, in [0, 1).
        sigma_data: of the `Preconditioning` of all; None for none.
    """

    base_steps: int = 128
    teacher_fraction: float = 0.5
    guidance: float = 1.0
    condition_dropout: float = 0.0
    sigma_data: float | None = None

    def __post_init__(self) -> None:
        if self.base_steps < 2:
            raise ValueError(f"base_steps must be at least 2 for two steps to become one, got {self.base_steps}")
        DyadicSteps(self.base_steps)
        self._flow()
        check_teacher(self.teacher_fraction, self.guidance, self.condition_dropout)

    @property
    def needs(self) -> frozenset[Need]:
        """The teacher."""
        return frozenset({"teacher"})

    @property
    def stages(self) -> tuple[HalvingStage, ...]:
        """In their order: from base_steps / 2 steps down to one; the first alone guides."""
        finest = DyadicSteps(self.base_steps).finest_level
        return tuple(
            HalvingStage(level, self.guidance if level == finest - 1 else 1.0, self.sigma_data)
            for level in reversed(range(finest))
        )

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """The first teacher's training, unless it is given; then the stages.

        Raises:
            ValueError: there are fewer updates than stages.
        """
        first, count = teacher_steps(self.teacher_fraction, total_steps), len(self.stages)
        if total_steps - first < count:
            raise ValueError(
                f"{total_steps} updates, {first} of them for the teacher, are too few for {count} stages: raise "
                "trainer.steps or lower base_steps"
            )
        ends = [first + (total_steps - first) * number // count for number in range(count + 1)]
        phases = [
            Phase(
                f"{2**stage.level}_steps",
                end - begin,
                stage,
                teacher="keep" if begin == 0 else "ema",
                student="teacher",
            )
            for stage, begin, end in zip(self.stages, ends[:-1], ends[1:], strict=True)
        ]
        return (Phase("teacher", first, self._flow()), *phases) if first else tuple(phases)

    def draw(self, shape: torch.Size, progress: float, generator: torch.Generator) -> Draw:
        """That of the last stage."""
        return self.stages[-1].draw(shape, progress, generator)

    def loss(self, nets: Networks, batch: Batch, draw: Draw) -> Loss:
        """That of the last stage."""
        return self.stages[-1].loss(nets, batch, draw)

    def sampler(self, num_steps: int) -> EulerSampler:
        """Equal steps, each told d = 0; one is what the network was trained for."""
        return self.stages[-1].sampler(num_steps)

    def _flow(self) -> FlowMatching:
        return FlowMatching(condition_dropout=self.condition_dropout, sigma_data=self.sigma_data)
