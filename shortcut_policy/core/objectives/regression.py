"""Plain regression: the data are predicted from the condition alone. The honest baseline: it cannot be multimodal.

    L = E || p(0, 0, 0) - x_1 ||^2

p(x, t, d) is the raw output of the network, which sees neither noise nor time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from shortcut_policy.core.network import Predictor
from shortcut_policy.core.objectives.base import Batch, Draw, Loss, Mean, Need, Networks, Phase, mean_square


@dataclass(frozen=True)
class RegressionSampler:
    """p(0, 0, 0), whatever the noise."""

    evaluations = 1
    step_noises = 0

    def __call__(self, predict: Predictor, noise: Tensor, step_noise: Tensor | None = None) -> Tensor:
        """Map noise (B, *S), of which only the shape matters, to the prediction (B, *S)."""
        zero = noise.new_zeros(noise.shape[0])
        return predict(torch.zeros_like(noise), zero, zero).to(noise.dtype)


@dataclass(frozen=True)
class Regression:
    """The regression objective."""

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing but the student."""
        return frozenset()

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """One phase."""
        return (Phase("regression", total_steps, self),)

    def draw(self, shape: torch.Size, progress: float, generator: torch.Generator) -> Draw:
        """Nothing is random: zeros."""
        zero = torch.zeros(shape[0], device=generator.device)
        return Draw(noise=torch.zeros(shape, device=generator.device), t=zero, d=zero, drop=None)

    def loss(self, nets: Networks, batch: Batch, draw: Draw) -> Loss:
        """|| p(0, 0, 0) - x_1 ||^2, mean over each row."""
        error = nets.student(draw.noise, draw.t, draw.d).to(batch.data.dtype) - batch.data
        per_row = mean_square(error, batch.loss_mask)
        return Loss(per_row, {"regression_loss": Mean.over(per_row, torch.ones_like(per_row))})

    def sampler(self, num_steps: int) -> RegressionSampler:
        """One evaluation; further steps would change nothing.

        Raises:
            ValueError: num_steps is not positive.
        """
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        return RegressionSampler()
