"""Diffusion (DDPM, arXiv 2006.11239; sampled by DDIM, arXiv 2010.02502): with the 1-D U-Net this is Diffusion Policy.

    L = E || p(x^k, t_k, 0) - target ||^2

The target is the noise x_0 ("epsilon"), or sqrt(abar_k) x_0 - sqrt(1 - abar_k) x_1 ("velocity": Salimans & Ho,
arXiv 2202.00512). d is always 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from shortcut_policy.core.interpolant import expand_rows
from shortcut_policy.core.network import Predictor
from shortcut_policy.core.noise_schedule import Betas, DiffusionStep, NoiseSchedule, Spacing
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

Prediction = Literal["epsilon", "velocity"]


@dataclass(frozen=True)
class DiffusionSampler:
    """Follows the steps of a noise schedule from noise to data.

    Attributes:
        steps: of `NoiseSchedule.ddim` or `ddpm`.
        prediction: what the network predicts.
        clip: bound on the predicted data in every step; None for none.
    """

    steps: Sequence[DiffusionStep]
    prediction: Prediction
    clip: float | None

    @property
    def evaluations(self) -> int:
        """One for each step."""
        return len(self.steps)

    @property
    def step_noises(self) -> int:
        """One for each step but the last, where steps add noise."""
        return len(self.steps) - 1 if any(step.noise > 0 for step in self.steps) else 0

    def __call__(self, predict: Predictor, noise: Tensor, step_noise: Tensor | None = None) -> Tensor:
        """Map noise (B, *S) and, with DDPM, step noise (steps - 1, B, *S) to a sample (B, *S)."""
        x, zero = noise, noise.new_zeros(noise.shape[0])
        for number, step in enumerate(self.steps):
            output = predict(x, torch.full_like(zero, step.t), zero).to(x.dtype)
            if self.prediction == "epsilon":
                data, epsilon = (x - step.sigma * output) / step.signal, output
            else:
                data, epsilon = step.signal * x - step.sigma * output, step.sigma * x + step.signal * output
            if self.clip is not None:
                data = data.clamp(-self.clip, self.clip)
            x = step.data * data + step.point * x + step.epsilon * epsilon
            if step.noise > 0:
                assert step_noise is not None
                x = x + step.noise * step_noise[number]
        return x


@dataclass(frozen=True)
class DiffusionDraw(Draw):
    """A draw that also holds the diffusion indices k, (B,) int64."""

    k: Tensor


@dataclass(frozen=True)
class Diffusion:
    """The diffusion objective; the defaults are Diffusion Policy's (arXiv 2303.04137).

    Args:
        train_steps: K, number of noise levels.
        betas: see `NoiseSchedule`.
        prediction: "epsilon" or "velocity".
        sampling: "ddim", or "ddpm", which adds noise in every step.
        spacing: of the levels that fewer steps visit, see `NoiseSchedule.indices`.
        clip: bound on the predicted data while sampling; None for none.
        condition_dropout: share of rows trained on the null condition, in [0, 1).
    """

    train_steps: int = 100
    betas: Betas = "squared_cosine"
    prediction: Prediction = "epsilon"
    sampling: Literal["ddim", "ddpm"] = "ddim"
    spacing: Spacing = "trailing"
    clip: float | None = 1.0
    condition_dropout: float = 0.0

    def __post_init__(self) -> None:
        NoiseSchedule(self.train_steps, self.betas)
        if self.clip is not None and self.clip <= 0:
            raise ValueError(f"clip must be positive or null, got {self.clip}")
        if not 0.0 <= self.condition_dropout < 1.0:
            raise ValueError(f"condition_dropout must lie in [0, 1), got {self.condition_dropout}")
        for name, value, known in (
            ("prediction", self.prediction, ("epsilon", "velocity")),
            ("sampling", self.sampling, ("ddim", "ddpm")),
            ("spacing", self.spacing, ("trailing", "leading")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")

    @property
    def schedule(self) -> NoiseSchedule:
        """The noise levels."""
        return NoiseSchedule(self.train_steps, self.betas)

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing but the student."""
        return frozenset()

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """One phase."""
        return (Phase("diffusion", total_steps, self),)

    def draw(self, shape: torch.Size, progress: float, generator: torch.Generator) -> DiffusionDraw:
        """Gaussian noise, k uniform on 0 .. K - 1, d = 0."""
        rows, device = shape[0], generator.device
        k = torch.randint(self.train_steps, (rows,), generator=generator, device=device)
        return DiffusionDraw(
            noise=torch.randn(shape, generator=generator, device=device),
            t=self.schedule.time(k),
            d=torch.zeros(rows, device=device),
            drop=draw_dropped_rows(rows, self.condition_dropout, generator),
            k=k,
        )

    def loss(self, nets: Networks, batch: Batch, draw: Draw) -> Loss:
        """|| p(x^k, t_k, 0) - target ||^2, mean over each row."""
        if not isinstance(draw, DiffusionDraw):
            raise TypeError(f"the diffusion objective needs its own draw, got {type(draw).__name__}")
        level = self.schedule.alpha_bar().to(draw.k.device)[draw.k]  # abar_k (B,)
        signal, sigma = (expand_rows(part.sqrt(), batch.data) for part in (level, 1 - level))
        noised = signal * batch.data + sigma * draw.noise
        target = draw.noise if self.prediction == "epsilon" else signal * draw.noise - sigma * batch.data
        student = nets.student if draw.drop is None else nets.student.drop(draw.drop)
        per_row = mean_square(student(noised, draw.t, draw.d).to(target.dtype) - target, batch.loss_mask)
        return Loss(per_row, {"diffusion_loss": Mean.over(per_row, torch.ones_like(per_row))})

    def sampler(self, num_steps: int) -> DiffusionSampler:
        """DDIM or DDPM with `num_steps` of the K levels."""
        make = self.schedule.ddim if self.sampling == "ddim" else self.schedule.ddpm
        return DiffusionSampler(make(num_steps, self.spacing), self.prediction, self.clip)
