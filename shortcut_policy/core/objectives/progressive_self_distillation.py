"""Progressive self-distillation of a flow map: a step is made to land where two of its parts land, split at random.

    L = E || s(x_t, t, 0) - (x_1 - x_0) ||^2                                                      flow rows
      + E || s(x_t, t, d) - sg[ h s-(x_t, t, h d) + (1 - h) s-(x_{t+hd}, t + h d, (1 - h) d) ] ||^2   other rows
    with x_{t+hd} = x_t + h d s-(x_t, t, h d)

for any start t, any size d <= 1 - t and any split h in (0, 1). s is the average velocity of the flow map
X_{t,r}(x) = x + (r - t) s(x, t, r - t) (Boffi, Albergo & Vanden-Eijnden, "How to build a consistency model", 2025).
The shortcut model is the case of h = 1/2 on a dyadic grid.

What ties the steps to the flow is their smallest parts: those shorter than `finest` are taken from s(., ., 0), as the
halves of the shortcut's smallest step are, and sizes are drawn log-uniformly, so that a good share of the rows has such
parts. With uniform sizes and no such limit the steps agreed with each other and not with the flow: on Push-T, 5,000
updates led to an action error of 182 px in 16 steps, where the same network, told d = 0, had 42 px.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from shortcut_policy.core.interpolant import Interpolant, expand_rows
from shortcut_policy.core.network import Predictor
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
from shortcut_policy.core.steps import spread_rows, uniform_schedule


@dataclass(frozen=True)
class SplitDraw(Draw):
    """A draw that also says which rows learn from two parts of their step, and where it is split.

    Attributes:
        distilled: (B,) bool, always on the CPU: it is known without asking the device.
        split: h in (0, 1), (B,).
    """

    distilled: Tensor
    split: Tensor

    def to(self, device: torch.device) -> "SplitDraw":
        """The same choices on another device; `distilled` stays on the CPU."""
        moved = super().to(device)
        return SplitDraw(moved.noise, moved.t, moved.d, moved.drop, self.distilled, moved.split)


def split_target(predict: Predictor, x_t: Tensor, t: Tensor, d: Tensor, split: Tensor, finest: float = 0.0) -> Tensor:
    """The average velocity (B, *S) of a step of size d made in two parts, h d and (1 - h) d, without gradient.

    Args:
        predict: s.
        x_t, t, d: points (B, *S), times and step sizes (B,).
        split: h, (B,).
        finest: parts shorter than this are those of the flow, d = 0.
    """

    def told(size: Tensor) -> Tensor:
        return torch.where(size < finest, 0.0, size)

    with torch.no_grad():
        first = predict(x_t, t, told(split * d)).to(x_t.dtype)
        x_mid = x_t + expand_rows(split * d, x_t) * first
        second = predict(x_mid, t + split * d, told((1 - split) * d)).to(x_t.dtype)
        h = expand_rows(split, x_t)
        return h * first + (1 - h) * second


@dataclass(frozen=True)
class ProgressiveSelfDistillation:
    """The objective, sampled in equal steps, each told its size.

    Args:
        distilled_fraction: share of the batch that learns from two parts of a step, in [0, 1].
        teacher: whose parts are the target: "ema", or "online", the student itself.
        finest: smallest size of a step, in (0, 1); shorter parts are the flow's.
        sigma_min: noise left at t = 1, in [0, 1).
        condition_dropout: share of the flow rows trained on the null condition, in [0, 1).
        sigma_data: of the `Preconditioning`; None for none.
    """

    distilled_fraction: float = 0.25
    teacher: Literal["ema", "online"] = "ema"
    finest: float = 1 / 128
    sigma_min: float = 0.0
    condition_dropout: float = 0.0
    sigma_data: float | None = None

    def __post_init__(self) -> None:
        Interpolant(self.sigma_min)
        Preconditioning(self.sigma_data)
        if not 0.0 <= self.distilled_fraction <= 1.0:
            raise ValueError(f"distilled_fraction must lie in [0, 1], got {self.distilled_fraction}")
        if not 0.0 <= self.condition_dropout < 1.0:
            raise ValueError(f"condition_dropout must lie in [0, 1), got {self.condition_dropout}")
        if not 0.0 < self.finest < 1.0:
            raise ValueError(f"finest must lie in (0, 1), got {self.finest}")
        if self.teacher not in ("ema", "online"):
            raise ValueError(f"teacher must be one of ema, online, got {self.teacher!r}")

    @property
    def needs(self) -> frozenset[Need]:
        """The target EMA, unless the student is its own teacher."""
        return frozenset({"target_ema"}) if self.teacher == "ema" else frozenset()

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """One phase."""
        return (Phase("progressive_self_distillation", total_steps, self),)

    def draw(self, shape: torch.Size, progress: float, generator: torch.Generator) -> SplitDraw:
        """Noise, kinds of the rows; d = 0 and t uniform in [0, 1), or d log-uniform and t uniform in [0, 1 - d]."""
        rows, device = shape[0], generator.device
        distilled = spread_rows(rows, self.distilled_fraction)
        if not distilled.any() and self.distilled_fraction > 0:
            raise ValueError(
                f"a batch of {rows} rows with distilled_fraction {self.distilled_fraction} has no row to distil: "
                "raise one of them"
            )
        d = self.finest ** torch.rand(rows, generator=generator, device=device)  # in (finest, 1]
        on_device = distilled.to(device, non_blocking=True)
        drop = draw_dropped_rows(rows, self.condition_dropout, generator)
        return SplitDraw(
            noise=torch.randn(shape, generator=generator, device=device),
            t=torch.rand(rows, generator=generator, device=device) * torch.where(on_device, 1.0 - d, 1.0),
            d=torch.where(on_device, d, 0.0),
            drop=None if drop is None else drop & ~on_device,
            distilled=distilled,
            split=torch.rand(rows, generator=generator, device=device),
        )

    def loss(self, nets: Networks, batch: Batch, draw: Draw) -> Loss:
        """Both parts of the objective, with one student forward for all rows."""
        if not isinstance(draw, SplitDraw):
            raise TypeError(f"progressive self-distillation needs its own draw, got {type(draw).__name__}")
        path, velocity = Interpolant(self.sigma_min), Preconditioning(self.sigma_data).velocity
        x_t = path.point(draw.noise, batch.data, draw.t)
        target = path.velocity(draw.noise, batch.data)
        rows = draw.distilled.nonzero().squeeze(1).to(x_t.device, non_blocking=True)
        if len(rows):
            teacher = nets.target if self.teacher == "ema" else nets.student
            if teacher is None:
                raise ValueError("teacher is 'ema' but no target network was given")
            if draw.drop is None:
                nets.student.encoded()  # once for all that follows, where the student is its own teacher
            predict = velocity(teacher.rows(rows))
            parts = split_target(predict, x_t[rows], draw.t[rows], draw.d[rows], draw.split[rows], self.finest)
            target = target.index_copy(0, rows, parts)
        student = nets.student if draw.drop is None else nets.student.drop(draw.drop)
        error = velocity(student)(x_t, draw.t, draw.d).to(target.dtype) - target
        per_row = mean_square(error, batch.loss_mask)
        is_distilled = draw.distilled.to(per_row.device, non_blocking=True)
        return Loss(
            per_row,
            {
                "flow_loss": Mean.over(per_row, ~is_distilled),
                "distillation_loss": Mean.over(per_row, is_distilled),
            },
        )

    def sampler(self, num_steps: int) -> EulerSampler:
        """Equal steps, each told its size; shorter ones than `finest` are the flow's."""
        steps = [Step(t, size, size if size >= self.finest else 0.0) for t, size in uniform_schedule(num_steps)]
        return EulerSampler(steps, Preconditioning(self.sigma_data))
