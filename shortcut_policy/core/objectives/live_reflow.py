"""Live reflow (a baseline of arXiv 2410.12557): flow matching and reflow at once, in one network with a flag.

    L = E || s(x_t, t, 0) - (x_1 - x_0) ||^2                            flow rows
      + E || s(x'_t, t, 1) - (x'_1 - x_0) ||^2                          reflow rows
    with x'_1 = where `pair_steps` Euler steps with s(., ., 0) lead the noise x_0, and x'_t between these two

The step size serves as the flag: 0 for the flow, 1 for the straightened one.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from shortcut_policy.core.interpolant import Interpolant
from shortcut_policy.core.objectives.base import (
    Batch,
    Draw,
    Loss,
    Mean,
    Need,
    Networks,
    Phase,
    check_guidance,
    draw_dropped_rows,
    mean_square,
)
from shortcut_policy.core.preconditioning import Preconditioning
from shortcut_policy.core.sampler import EulerSampler, Step
from shortcut_policy.core.steps import spread_rows, uniform_schedule


@dataclass(frozen=True)
class PairDraw(Draw):
    """A draw that also says which rows learn from pairs of the network's own.

    Attributes:
        reflows: (B,) bool, always on the CPU: it is known without asking the device.
    """

    reflows: Tensor

    def to(self, device: torch.device) -> "PairDraw":
        """The same choices on another device; `reflows` stays on the CPU."""
        moved = super().to(device)
        return PairDraw(moved.noise, moved.t, moved.d, moved.drop, self.reflows)


@dataclass(frozen=True)
class LiveReflow:
    """The objective.

    Args:
        pair_steps: Euler steps with which a pair is made.
        reflow_fraction: share of the batch that learns from pairs, in [0, 1); the others learn the flow.
        teacher: who makes them: "online", the student itself, or its "ema".
        condition_dropout: share of the flow rows trained on the null condition, in [0, 1).
        guidance: scale of classifier-free guidance with which pairs are made; 1 is none.
        sigma_data: of the `Preconditioning`; None for none.
    """

    pair_steps: int = 8
    reflow_fraction: float = 0.125
    teacher: Literal["online", "ema"] = "online"
    condition_dropout: float = 0.0
    guidance: float = 1.0
    sigma_data: float | None = None

    def __post_init__(self) -> None:
        Preconditioning(self.sigma_data)
        if self.pair_steps < 1:
            raise ValueError(f"pair_steps must be positive, got {self.pair_steps}")
        if not 0.0 <= self.reflow_fraction < 1.0:
            raise ValueError(f"reflow_fraction must lie in [0, 1), got {self.reflow_fraction}")
        check_guidance(self.guidance, self.condition_dropout)
        if self.teacher not in ("online", "ema"):
            raise ValueError(f"teacher must be one of online, ema, got {self.teacher!r}")

    @property
    def needs(self) -> frozenset[Need]:
        """The target EMA, where it makes the pairs."""
        return frozenset({"target_ema"}) if self.teacher == "ema" else frozenset()

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """One phase."""
        return (Phase("live_reflow", total_steps, self),)

    def draw(self, shape: torch.Size, progress: float, generator: torch.Generator) -> PairDraw:
        """Gaussian noise, t uniform in [0, 1), kinds of the rows.

        Raises:
            ValueError: the batch is so small that no row is left for the pairs.
        """
        rows, device = shape[0], generator.device
        reflows = spread_rows(rows, self.reflow_fraction)
        if not reflows.any() and self.reflow_fraction > 0:
            raise ValueError(
                f"a batch of {rows} rows with reflow_fraction {self.reflow_fraction} has no reflow row: "
                "raise one of them"
            )
        flag = reflows.to(device, non_blocking=True)
        drop = draw_dropped_rows(rows, self.condition_dropout, generator)
        return PairDraw(
            noise=torch.randn(shape, generator=generator, device=device),
            t=torch.rand(rows, generator=generator, device=device),
            d=flag.float(),
            drop=None if drop is None else drop & ~flag,
            reflows=reflows,
        )

    def loss(self, nets: Networks, batch: Batch, draw: Draw) -> Loss:
        """Flow matching to the data or, in reflow rows, to the network's own end points; one student forward."""
        if not isinstance(draw, PairDraw):
            raise TypeError(f"live reflow needs its own draw, got {type(draw).__name__}")
        data = batch.data
        rows = draw.reflows.nonzero().squeeze(1).to(data.device, non_blocking=True)
        if len(rows):
            teacher = nets.target if self.teacher == "ema" else nets.student
            if teacher is None:
                raise ValueError("teacher is 'ema' but no target network was given")
            if draw.drop is None:
                nets.student.encoded()  # once for all that follows, where the student is its own teacher
            maker = teacher.rows(rows)
            with torch.no_grad():
                ends = self._euler(self.pair_steps, 0.0)(
                    maker if self.guidance == 1.0 else maker.guided(self.guidance), draw.noise[rows]
                )
            data = data.index_copy(0, rows, ends)
        path = Interpolant()
        student = nets.student if draw.drop is None else nets.student.drop(draw.drop)
        s = Preconditioning(self.sigma_data).velocity(student)
        error = s(path.point(draw.noise, data, draw.t), draw.t, draw.d).to(data.dtype) - path.velocity(draw.noise, data)
        per_row = mean_square(error, batch.loss_mask)
        reflows = draw.reflows.to(per_row.device, non_blocking=True)
        return Loss(per_row, {"flow_loss": Mean.over(per_row, ~reflows), "reflow_loss": Mean.over(per_row, reflows)})

    def sampler(self, num_steps: int) -> EulerSampler:
        """Equal steps: of the flow, where there are as many as a pair is made with, else of the straightened flow."""
        return self._euler(num_steps, 0.0 if num_steps >= self.pair_steps else 1.0)

    def _euler(self, num_steps: int, flag: float) -> EulerSampler:
        steps = [Step(t, size, flag) for t, size in uniform_schedule(num_steps)]
        return EulerSampler(steps, Preconditioning(self.sigma_data))
