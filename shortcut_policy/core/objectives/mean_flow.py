"""MeanFlow (Geng et al., arXiv 2505.13447): the average velocity of a step, from its derivative along the path.

    L = E || s(x_t, t, d) - sg[ v + d Ds/Dt ] ||^2,  v = x_1 - x_0
    with Ds/Dt the derivative along (x_t, t) at a fixed end t + d: the Jacobian of s times (v, 1, -1) in (x, t, d)

That is their equation 6, d s = the integral of the velocity from t to t + d, differentiated by t. At d = 0 it is flow
matching. The derivative is one Jacobian-vector product.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

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
    check_guidance,
    check_weight,
    draw_dropped_rows,
    mean_square,
)
from shortcut_policy.core.preconditioning import Preconditioning
from shortcut_policy.core.sampler import EulerSampler, Step
from shortcut_policy.core.steps import spread_rows, uniform_schedule


def mean_flow_target(
    network: BoundNetwork, velocity: Predictor, x_t: Tensor, t: Tensor, d: Tensor, v: Tensor
) -> Tensor:
    """v + d Ds/Dt (B, *S), without gradient.

    Args:
        network: whose conditions must be encoded before the derivative is taken, which is not one by them.
        velocity: s of that network.
        x_t, t, d: points (B, *S), times and step sizes (B,).
        v: velocities of the path (B, *S).
    """
    with torch.no_grad():
        network.encoded()
        along = (v, torch.ones_like(t), -torch.ones_like(d))
        with sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward derivative
            derivative: Tensor = torch.func.jvp(velocity, (x_t, t, d), along)[1]
        return v + expand_rows(d, v) * derivative.to(v.dtype)


@dataclass(frozen=True)
class AverageDraw(Draw):
    """A draw that also says which rows learn the average velocity of a step.

    Attributes:
        averages: (B,) bool, always on the CPU: it is known without asking the device.
    """

    averages: Tensor

    def to(self, device: torch.device) -> "AverageDraw":
        """The same choices on another device; `averages` stays on the CPU."""
        moved = super().to(device)
        return AverageDraw(moved.noise, moved.t, moved.d, moved.drop, self.averages)


@dataclass(frozen=True)
class MeanFlow:
    """The objective, sampled in equal steps, each told its size.

    Args:
        average_fraction: share of the batch with d > 0, in [0, 1]; the others learn the flow (the paper: 1/4).
        weight_power, weight_offset: p and c of the rows' `adaptive_weight`; p = 0 for equal weights.
        condition_dropout: share of rows trained on the null condition, in [0, 1).
        guidance: scale w of classifier-free guidance that is trained in, in rows that keep their condition (their
            section on guidance): v = w (x_1 - x_0) + (1 - w) s(x_t, t, 0) without condition; 1 is none.
        sigma_data: of the `Preconditioning`; None for none.
    """

    average_fraction: float = 0.25
    weight_power: float = 1.0
    weight_offset: float = 1e-3
    condition_dropout: float = 0.0
    guidance: float = 1.0
    sigma_data: float | None = None

    def __post_init__(self) -> None:
        Preconditioning(self.sigma_data)
        if not 0.0 <= self.average_fraction <= 1.0:
            raise ValueError(f"average_fraction must lie in [0, 1], got {self.average_fraction}")
        check_weight(self.weight_power, self.weight_offset)
        check_guidance(self.guidance, self.condition_dropout)

    @property
    def needs(self) -> frozenset[Need]:
        """Jacobian-vector products."""
        return frozenset({"jvp"})

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """One phase."""
        return (Phase("mean_flow", total_steps, self),)

    def draw(self, shape: torch.Size, progress: float, generator: torch.Generator) -> AverageDraw:
        """Noise, kinds of the rows; t uniform in [0, 1) and d = 0, or t < t + d the order of two uniform numbers.

        Raises:
            ValueError: the batch is so small that no row is left for the averages.
        """
        rows, device = shape[0], generator.device
        averages = spread_rows(rows, self.average_fraction)
        if not averages.any() and self.average_fraction > 0:
            raise ValueError(
                f"a batch of {rows} rows with average_fraction {self.average_fraction} has no row with d > 0: "
                "raise one of them"
            )
        on_device = averages.to(device, non_blocking=True)
        ends = torch.rand(rows, 2, generator=generator, device=device).sort(dim=1).values
        return AverageDraw(
            noise=torch.randn(shape, generator=generator, device=device),
            t=torch.where(on_device, ends[:, 0], torch.rand(rows, generator=generator, device=device)),
            d=torch.where(on_device, ends[:, 1] - ends[:, 0], 0.0),
            drop=draw_dropped_rows(rows, self.condition_dropout, generator),
            averages=averages,
        )

    def loss(self, nets: Networks, batch: Batch, draw: Draw) -> Loss:
        """Both kinds of rows, with one student forward that has a gradient."""
        if not isinstance(draw, AverageDraw):
            raise TypeError(f"MeanFlow needs its own draw, got {type(draw).__name__}")
        path, velocity = Interpolant(), Preconditioning(self.sigma_data).velocity
        student = nets.student if draw.drop is None else nets.student.drop(draw.drop)
        x_t = path.point(draw.noise, batch.data, draw.t)
        v = self._guide(nets.student, x_t, draw, path.velocity(draw.noise, batch.data))
        target, rows = v, draw.averages.nonzero().squeeze(1).to(x_t.device, non_blocking=True)
        if len(rows):
            student.encoded()  # once for all that follows
            some = student.rows(rows)
            averages = mean_flow_target(some, velocity(some), x_t[rows], draw.t[rows], draw.d[rows], v[rows])
            target = v.index_copy(0, rows, averages)
        error = velocity(student)(x_t, draw.t, draw.d).to(target.dtype) - target
        square = mean_square(error, batch.loss_mask)
        weight = adaptive_weight(square, self.weight_power, self.weight_offset)
        averages = draw.averages.to(square.device, non_blocking=True)
        return Loss(
            weight * square,
            {"flow_loss": Mean.over(square, ~averages), "average_loss": Mean.over(square, averages)},
        )

    def sampler(self, num_steps: int) -> EulerSampler:
        """Equal steps, each told its size."""
        steps = [Step(t, size, size) for t, size in uniform_schedule(num_steps)]
        return EulerSampler(steps, Preconditioning(self.sigma_data))

    def _guide(self, student: BoundNetwork, x_t: Tensor, draw: AverageDraw, v: Tensor) -> Tensor:
        """The velocity that is to be averaged, guided in rows that keep their condition."""
        if self.guidance == 1.0:
            return v
        with torch.no_grad():
            null = Preconditioning(self.sigma_data).velocity(student.drop(torch.ones_like(draw.t, dtype=torch.bool)))
            guided = self.guidance * v + (1.0 - self.guidance) * null(x_t, draw.t, torch.zeros_like(draw.t)).to(v.dtype)
        if draw.drop is None:
            return guided
        return torch.where(draw.drop.reshape(-1, *([1] * (v.ndim - 1))), v, guided)
