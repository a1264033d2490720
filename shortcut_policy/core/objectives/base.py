"""The protocol that every objective follows, and the objects that cross it.

An objective turns data and networks into a loss per row, and a number of steps into a sampler. It owns maths only:
the trainer owns the optimizer, the copies of the network (EMA, teacher) and when they are refreshed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal, Protocol, Self

import torch
from torch import Tensor

from shortcut_policy.core.network import BoundNetwork, Condition, Predictor

Need = Literal["target_ema", "teacher", "jvp"]


@dataclass(frozen=True)
class Batch:
    """Rows to learn from, already normalised.

    Attributes:
        data: x_1 (B, *S).
        condition: raw observations or labels, leading B on every leaf.
        null_condition: what stands for "no condition" in every row, where dropout or guidance is used.
        loss_mask: (B, S_1) or any shape that broadcasts to data from the left; 0 leaves an element out of the loss.
    """

    data: Tensor
    condition: Condition = None
    null_condition: Condition = None
    loss_mask: Tensor | None = None


@dataclass(frozen=True)
class Draw:
    """The random choices of a *global* batch; a rank or micro-batch takes its slice.

    Objectives extend it with fields of their own, each with leading dimension B.

    Attributes:
        noise: x_0 (B, *S).
        t: times in [0, 1], (B,).
        d: step size that the student is told, in [0, 1], (B,).
        drop: rows whose condition is replaced by the null condition, (B,) bool, or None for no row.
    """

    noise: Tensor
    t: Tensor
    d: Tensor
    drop: Tensor | None

    def rows(self, rows: slice) -> Self:
        """The same choices for some rows."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: v[rows] for name, v in values.items() if isinstance(v, Tensor)})

    def to(self, device: torch.device) -> Self:
        """The same choices on another device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        moved = {n: v.to(device, non_blocking=True) for n, v in values.items() if isinstance(v, Tensor)}
        return replace(self, **moved)


@dataclass(frozen=True)
class Networks:
    """The copies of the network, bound to the batch's conditions, that an objective may call.

    Attributes:
        student: the one that learns.
        target: the EMA copy for bootstrap targets, where the objective needs "target_ema".
        teacher: the frozen copy, where the objective needs "teacher".
    """

    student: BoundNetwork
    target: BoundNetwork | None = None
    teacher: BoundNetwork | None = None


@dataclass(frozen=True)
class Mean:
    """A mean that adds up over micro-batches, ranks and steps: `total` over `count` rows."""

    total: Tensor
    count: Tensor

    def __add__(self, other: "Mean") -> "Mean":
        return Mean(self.total + other.total, self.count + other.count)

    @staticmethod
    def over(values: Tensor, mask: Tensor) -> "Mean":
        """The mean of values (B,) where mask (B,) is true, without a synchronisation."""
        return Mean((values.detach() * mask).sum(), mask.sum())


@dataclass(frozen=True)
class Loss:
    """What an objective returns: the loss of each row (B,) and named means for the log."""

    per_row: Tensor
    metrics: Mapping[str, Mean]


@dataclass(frozen=True)
class Phase:
    """A part of the training.

    Attributes:
        name: shown in the log.
        steps: number of updates.
        objective: what is minimised in this phase (a two-phase method trains its teacher with another objective).
        teacher: what the frozen teacher becomes when the phase begins: the evaluation EMA, the student, or
            "keep" for what it was (in the first phase: what the trainer was given).
        student: what the student becomes then: its "initial" weights or the "teacher"'s, either with a fresh optimizer
            and fresh EMAs, or "keep" for what it was.
    """

    name: str
    steps: int
    objective: "Objective"
    teacher: Literal["keep", "ema", "student"] = "keep"
    student: Literal["keep", "initial", "teacher"] = "keep"


class Sampler(Protocol):
    """Maps noise to samples with a fixed number of network evaluations."""

    @property
    def evaluations(self) -> int:
        """How many network evaluations it makes."""

    @property
    def step_noises(self) -> int:
        """How many further draws of noise it uses on the way (re-noising, DDPM); 0 for an ODE."""

    def __call__(self, predict: Predictor, noise: Tensor, step_noise: Tensor | None = None) -> Tensor:
        """Map noise (B, *S) and, where it needs it, step noise (step_noises, B, *S) to samples (B, *S)."""


class Objective(Protocol):
    """A way to train the network, and the sampler that goes with it."""

    @property
    def needs(self) -> frozenset[Need]:
        """The copies of the network, and the transformations of it, that `loss` uses."""

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """The parts of a training of `total_steps` updates; their steps add up to it."""

    def draw(self, shape: torch.Size, progress: float, generator: torch.Generator) -> Draw:
        """Draw what is random for a global batch of data shape (B, *S).

        Args:
            progress: share of the phase that is done, in [0, 1], for schedules over the training.
            generator: the only source of randomness; the draw lies on its device.
        """

    def loss(self, nets: Networks, batch: Batch, draw: Draw) -> Loss:
        """The loss of every row, a pure function of its arguments; one student forward for all rows."""

    def sampler(self, num_steps: int) -> Sampler:
        """The sampler that makes `num_steps` steps, or fewer where the method has no more to make."""


def mean_square(error: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of error^2 over each row: (B, *S) -> (B,), over the unmasked elements where a mask is given.

    A row that is masked wholly has loss 0.
    """
    square = error.square().flatten(1)
    if mask is None:
        return square.mean(dim=1)
    weight = mask.to(error.dtype).reshape(*mask.shape, *([1] * (error.ndim - mask.ndim)))
    weight = weight.expand(error.shape).flatten(1)
    return (square * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1.0)


def adaptive_weight(square: Tensor, power: float, offset: float = 1e-3) -> Tensor:
    """Weights 1 / (e + c)^p of rows (B,) with mean square errors e, without gradient (MeanFlow, arXiv 2505.13447, 4.3).

    p = 1 minimises about log(e + c), to which a row of small error says as much as one of large error; p = 0 leaves all
    rows alike. Rows that learn from a network's own answers have small errors, rows that learn from noise large ones,
    of which most can never be learned: without weights the first are not heard.

    Args:
        square: e, (B,).
        power: p.
        offset: c, > 0.
    """
    return (square.detach() + offset) ** -power


def check_weight(power: float, offset: float) -> None:
    """Check the options of `adaptive_weight`.

    Raises:
        ValueError: the power is negative, or the offset not positive.
    """
    if not power >= 0.0:
        raise ValueError(f"weight_power must not be negative, got {power}")
    if not offset > 0.0:
        raise ValueError(f"weight_offset must be positive, got {offset}")


def draw_dropped_rows(rows: int, probability: float, generator: torch.Generator) -> Tensor | None:
    """Rows (B,) bool whose condition is dropped, each with the given probability; None if none can be."""
    if not 0.0 <= probability < 1.0:
        raise ValueError(f"condition_dropout must lie in [0, 1), got {probability}")
    if probability == 0.0:
        return None
    return torch.rand(rows, generator=generator, device=generator.device) < probability


def check_guidance(guidance: float, condition_dropout: float) -> None:
    """Guidance leads away from the null condition, which must have been trained.

    Raises:
        ValueError: it was not; or the dropout is not in [0, 1).
    """
    if not 0.0 <= condition_dropout < 1.0:
        raise ValueError(f"condition_dropout must lie in [0, 1), got {condition_dropout}")
    if guidance != 1.0 and condition_dropout == 0.0:
        raise ValueError(
            f"guidance={guidance} needs a network that was also trained without its condition: say "
            "condition_dropout=0.1"
        )


def check_teacher(teacher_fraction: float, guidance: float, condition_dropout: float) -> None:
    """Check the options of a method that distils a guided flow.

    Raises:
        ValueError: the fraction is not in [0, 1), or the flow is not trained for guidance; one that is given (fraction
            0) has a dropout of its own.
    """
    if not 0.0 <= teacher_fraction < 1.0:
        raise ValueError(f"teacher_fraction must lie in [0, 1), got {teacher_fraction}")
    if teacher_fraction > 0:
        check_guidance(guidance, condition_dropout)


def teacher_steps(teacher_fraction: float, total_steps: int) -> int:
    """How many of the updates train the teacher: 0 for one that is given (fraction 0).

    Raises:
        ValueError: the fraction leaves the teacher or the student nothing.
    """
    steps = round(teacher_fraction * total_steps)
    if teacher_fraction > 0 and not 0 < steps < total_steps:
        raise ValueError(
            f"teacher_fraction={teacher_fraction} divides {total_steps} updates into {steps} for the teacher and "
            f"{total_steps - steps} for the student: raise trainer.steps, or choose another fraction"
        )
    return steps
