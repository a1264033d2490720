"""Shortcut models (Frans, Hafner, Levine & Abbeel, arXiv 2410.12557): flow matching plus self-consistency.

    L = E || s(x_t, t, 0) - (x_1 - x_0) ||^2                                              flow rows
      + E || s(x_t, t, 2d) - sg[ s-(x_t, t, d)/2 + s-(x_{t+d}, t + d, d)/2 ] ||^2           bootstrap rows
    with x_{t+d} = x_t + d s-(x_t, t, d)

(eq. 4, 5; s- is an EMA copy, sg stops the gradient.) One step of size 2d is trained to land where two steps of size d
land, from the flow (d = 0) at the bottom to the whole path (2d = 1) at the top.
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from shortcut_policy.core.interpolant import Interpolant, expand_rows
from shortcut_policy.core.network import BoundNetwork, Predictor
from shortcut_policy.core.objectives.base import (
    Batch,
    Draw,
    Loss,
    Mean,
    Need,
    Networks,
    Phase,
    adaptive_weight,
    check_weight,
    draw_dropped_rows,
    mean_square,
)
from shortcut_policy.core.preconditioning import Preconditioning
from shortcut_policy.core.sampler import EulerSampler, Step
from shortcut_policy.core.steps import (
    DyadicSteps,
    FlowStep,
    LevelDraw,
    draw_grid_times,
    draw_levels,
    spread_rows,
)


@dataclass(frozen=True)
class ShortcutDraw(Draw):
    """A draw that also says which rows are bootstrap rows.

    Attributes:
        bootstrap: (B,) bool, always on the CPU: it is known without asking the device.
        asks_teacher: whether any row of the global batch is one; None where this is all of it.
    """

    bootstrap: Tensor
    asks_teacher: bool | None = None

    def to(self, device: torch.device) -> "ShortcutDraw":
        """The same choices on another device; `bootstrap` stays on the CPU."""
        moved = super().to(device)
        return ShortcutDraw(moved.noise, moved.t, moved.d, moved.drop, self.bootstrap, self.asks_teacher)


def bootstrap_target(
    predict: Predictor, x_t: Tensor, t: Tensor, double: Tensor, steps: DyadicSteps, clip: float | None = None
) -> Tensor:
    """The velocity of one step of size 2d that lands where two steps of size d land (eq. 5), without gradient.

    Args:
        predict: s-, the network whose two half steps are followed.
        x_t: points (B, *S).
        t: times (B,), multiples of 2d.
        double: 2d (B,), the size of the step that learns.
        steps: says what the network is told of d.
        clip: bound on |x_{t+d}| and on the target, as in the paper's code (4 on latents); None for no bound.
    """
    with torch.no_grad():
        d = double / 2
        first = predict(x_t, t, steps.told(d)).to(x_t.dtype)
        x_mid = x_t + expand_rows(d, x_t) * first
        x_mid = x_mid if clip is None else x_mid.clamp(-clip, clip)
        second = predict(x_mid, t + d, steps.told(d)).to(x_t.dtype)
        target = (first + second) / 2
        return target if clip is None else target.clamp(-clip, clip)


@dataclass(frozen=True)
class Shortcut:
    """The shortcut objective.

    Args:
        base_steps: number of smallest steps, a power of two; log2(base_steps) levels are bootstrapped.
        bootstrap_fraction: share of the batch that is bootstrapped, in [0, 1] (1/4 in the paper, 1/8 in its code).
        bootstrap_start: share of the training, in [0, 1), in which all rows learn the flow: until it is there, what it
            lands on teaches nothing. 0 in the paper.
        bootstrap_teacher: whose half steps are the target: "ema" (the paper's) or "online", the student itself.
        flow_step: whether the flow is learned and queried at d = "zero" (paper) or at the "smallest" step (its code).
        flow_times: times of the flow rows: "uniform" in [0, 1), or on the "grid" of the smallest step (the paper's).
        levels: how the levels of the bootstrap rows are drawn: "balanced", "uniform" or "official" (`draw_levels`).
        shared_data: whether a bootstrap row takes datum and condition of the flow row before it and leaves its own out,
            as in the paper's code; for fractions up to 1/2. The noise is its own: that code draws both with one key,
            but in different shapes, which gives different numbers.
        sigma_min: noise left at t = 1, in [0, 1).
        clip: bound on bootstrap points and targets; None for no bound.
        condition_dropout: share of the flow rows trained on the null condition, in [0, 1); bootstrap rows keep theirs.
        bootstrap_guidance: scale of classifier-free guidance inside the bootstrap targets; 1 is none.
        guided_levels: where that guidance acts: on the "finest" level only (the paper's code), from which the
            coarser ones inherit it, or on "all".
        sigma_data: of the `Preconditioning`; None for none, as in the paper.
        weighting: None for errors of the velocity (the paper's), or "prediction" for errors of what the preconditioned
            network predicts (`Preconditioning.weight`): those at t = 0, where one step begins, weigh most.
        weight_power, weight_offset: p and c of the rows' `adaptive_weight`; p = 0 for equal weights, as in the paper.
    """

    base_steps: int = 128
    bootstrap_fraction: float = 0.25
    bootstrap_start: float = 0.0
    bootstrap_teacher: Literal["ema", "online"] = "ema"
    flow_step: FlowStep = "zero"
    flow_times: Literal["uniform", "grid"] = "uniform"
    levels: LevelDraw = "balanced"
    shared_data: bool = False
    sigma_min: float = 0.0
    clip: float | None = None
    condition_dropout: float = 0.0
    bootstrap_guidance: float = 1.0
    guided_levels: Literal["finest", "all"] = "finest"
    sigma_data: float | None = None
    weighting: Literal["prediction"] | None = None
    weight_power: float = 0.0
    weight_offset: float = 1e-3

    def __post_init__(self) -> None:
        Interpolant(self.sigma_min)
        check_weight(self.weight_power, self.weight_offset)
        Preconditioning(self.sigma_data)
        if self.weighting not in (None, "prediction"):
            raise ValueError(f"weighting must be prediction or null, got {self.weighting!r}")
        if self.weighting == "prediction" and self.sigma_data is None:
            raise ValueError("weighting='prediction' weighs what a preconditioned network predicts: give a sigma_data")
        if self.base_steps < 2:
            raise ValueError(f"base_steps must be at least 2 for a step to be halved, got {self.base_steps}")
        DyadicSteps(self.base_steps, self.flow_step)
        if not 0.0 <= self.bootstrap_fraction <= 1.0:
            raise ValueError(f"bootstrap_fraction must lie in [0, 1], got {self.bootstrap_fraction}")
        if self.shared_data and self.bootstrap_fraction > 0.5:
            raise ValueError(
                f"shared_data needs a flow row for every bootstrap row: bootstrap_fraction {self.bootstrap_fraction} "
                "must be at most 0.5"
            )
        if not 0.0 <= self.bootstrap_start < 1.0:
            raise ValueError(f"bootstrap_start must lie in [0, 1), got {self.bootstrap_start}")
        if not 0.0 <= self.condition_dropout < 1.0:
            raise ValueError(f"condition_dropout must lie in [0, 1), got {self.condition_dropout}")
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip must be positive or null, got {self.clip}")
        for name, value, known in (
            ("bootstrap_teacher", self.bootstrap_teacher, ("ema", "online")),
            ("flow_times", self.flow_times, ("uniform", "grid")),
            ("levels", self.levels, ("balanced", "uniform", "official")),
            ("guided_levels", self.guided_levels, ("finest", "all")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")

    @property
    def steps(self) -> DyadicSteps:
        """The step sizes."""
        return DyadicSteps(self.base_steps, self.flow_step)

    @property
    def needs(self) -> frozenset[Need]:
        """The target EMA, unless the student is its own teacher."""
        return frozenset({"target_ema"}) if self.bootstrap_teacher == "ema" else frozenset()

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """One phase: the point of the method."""
        return (Phase("shortcut", total_steps, self),)

    def draw(self, shape: torch.Size, progress: float, generator: torch.Generator) -> ShortcutDraw:
        """Noise, times, step sizes and kinds of the rows.

        Raises:
            ValueError: the batch is so small that no row, or no flow row, is left.
        """
        rows, device = shape[0], generator.device
        bootstrap = spread_rows(rows, self.bootstrap_fraction)
        count = int(bootstrap.sum())
        if count == 0 < self.bootstrap_fraction:
            raise ValueError(
                f"a batch of {rows} rows with bootstrap_fraction {self.bootstrap_fraction} has no bootstrap row: "
                "raise one of them"
            )
        if progress < self.bootstrap_start:
            bootstrap, count = torch.zeros_like(bootstrap), 0
        if self.flow_times == "grid":
            finest = torch.full((rows,), self.steps.finest_level, device=device)
            t = draw_grid_times(finest, generator)
        else:
            t = torch.rand(rows, generator=generator, device=device)
        d = torch.full((rows,), self.steps.flow_d, device=device)

        levels = draw_levels(count, self.steps.finest_level, self.levels, generator)
        index = bootstrap.nonzero().squeeze(1).to(device, non_blocking=True)
        t[index] = draw_grid_times(levels, generator)
        d[index] = torch.exp2(-levels.float())
        drop = draw_dropped_rows(rows, self.condition_dropout, generator)
        if drop is not None:
            drop[index] = False
        return ShortcutDraw(
            noise=torch.randn(shape, generator=generator, device=device),
            t=t,
            d=d,
            drop=drop,
            bootstrap=bootstrap,
            asks_teacher=count > 0,
        )

    def loss(self, nets: Networks, batch: Batch, draw: Draw) -> Loss:
        """Both parts of the objective, with one student forward for all rows."""
        if not isinstance(draw, ShortcutDraw):
            raise TypeError(f"the shortcut objective needs its own draw, got {type(draw).__name__}")
        if self.shared_data:
            nets, batch = _share_data(nets, batch, draw.bootstrap)
        # 1. all rows: the point on the path and, to begin with, the flow's velocity as the target
        path = Interpolant(self.sigma_min)
        x_t = path.point(draw.noise, batch.data, draw.t)
        target = path.velocity(draw.noise, batch.data)

        # 2. bootstrap rows: the target becomes the mean velocity of two half steps
        rows = draw.bootstrap.nonzero().squeeze(1).to(x_t.device, non_blocking=True)
        if len(rows) if draw.asks_teacher is None else draw.asks_teacher:
            # a slice without such rows asks for one in vain: processes that share the teacher's weights must all ask
            asked = rows if len(rows) else rows.new_zeros(1)
            teacher = nets.target if self.bootstrap_teacher == "ema" else nets.student
            if teacher is None:
                raise ValueError("bootstrap_teacher is 'ema' but no target network was given")
            if draw.drop is None:
                nets.student.encoded()  # once for all that follows, where the student is its own teacher
            double = draw.d[asked]
            predict = self._velocity(self._guide(teacher.rows(asked), double))
            mean_velocity = bootstrap_target(predict, x_t[asked], draw.t[asked], double, self.steps, self.clip)
            target = target.index_copy(0, rows, mean_velocity[: len(rows)])

        # 3. one forward of the student
        student = nets.student if draw.drop is None else nets.student.drop(draw.drop)
        error = self._velocity(student)(x_t, draw.t, draw.d).to(target.dtype) - target
        square = mean_square(error, batch.loss_mask)
        is_bootstrap = draw.bootstrap.to(square.device, non_blocking=True)
        weighed = square if self.weighting is None else square * Preconditioning(self.sigma_data).weight(draw.t)
        return Loss(
            adaptive_weight(weighed, self.weight_power, self.weight_offset) * weighed,
            {
                "flow_loss": Mean.over(square, ~is_bootstrap),
                "bootstrap_loss": Mean.over(square, is_bootstrap),
                **{
                    f"bootstrap_loss_{2**level}_steps": Mean.over(square, is_bootstrap & (draw.d == 2.0**-level))
                    for level in range(self.steps.finest_level)
                },
            },
        )

    def sampler(self, num_steps: int) -> EulerSampler:
        """Dyadic steps, each told its size; `DyadicSteps.schedule` says what other counts give."""
        schedule = self.steps.schedule(num_steps)
        told = self.steps.told(torch.tensor([size for _, size in schedule], dtype=torch.float64)).tolist()
        steps = [Step(t, size, d) for (t, size), d in zip(schedule, told, strict=True)]
        return EulerSampler(steps, Preconditioning(self.sigma_data))

    def _velocity(self, network: Predictor) -> Predictor:
        return Preconditioning(self.sigma_data).velocity(network)

    def _guide(self, teacher: BoundNetwork, double: Tensor) -> Predictor:
        if self.bootstrap_guidance == 1.0:
            return teacher
        scale = torch.full_like(double, self.bootstrap_guidance)
        if self.guided_levels == "finest":
            scale = torch.where(double <= 2.0 / self.base_steps, scale, 1.0)
        return teacher.guided(scale)


def _share_data(nets: Networks, batch: Batch, bootstrap: Tensor) -> tuple[Networks, Batch]:
    """Give bootstrap rows (B,) datum and condition of the row before them; one that begins its slice keeps its own."""
    index = (torch.arange(len(bootstrap)) - bootstrap.long()).clamp(min=0).to(batch.data.device, non_blocking=True)
    mask = None if batch.loss_mask is None else batch.loss_mask[index]
    target = None if nets.target is None else nets.target.rows(index)
    return Networks(nets.student.rows(index), target), replace(batch, data=batch.data[index], loss_mask=mask)
