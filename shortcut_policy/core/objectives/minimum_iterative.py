"""Minimum iterative policy (Pan et al., arXiv 2512.01809): a regression, and one refinement of its own noised answer.

    L = E || p(0, 0) - x_1 ||^2 / c^2 + E || p(c x_1 + (1 - c) x_0, c) - x_1 ||^2 / (1 - c)^2

p(x, t) is the raw output of the network: it predicts the data. Two steps, both without randomness:

    p_0 = p(0, 0),  p_1 = p(c p_0, c)
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from shortcut_policy.core.interpolant import Interpolant
from shortcut_policy.core.network import Predictor
from shortcut_policy.core.objectives.base import Batch, Draw, Loss, Mean, Need, Networks, Phase, mean_square
from shortcut_policy.core.steps import spread_rows


@dataclass(frozen=True)
class RefiningSampler:
    """p(0, 0), refined once where two evaluations are granted.

    Attributes:
        evaluations: 1 or 2.
        c: time of the refinement.
    """

    evaluations: int
    c: float
    step_noises = 0

    def __call__(self, predict: Predictor, noise: Tensor, step_noise: Tensor | None = None) -> Tensor:
        """Map noise (B, *S), of which only the shape matters, to the prediction (B, *S)."""
        zero = noise.new_zeros(noise.shape[0])
        answer = predict(torch.zeros_like(noise), zero, zero).to(noise.dtype)
        if self.evaluations == 2:
            answer = predict(self.c * answer, torch.full_like(zero, self.c), zero).to(noise.dtype)
        return answer


@dataclass(frozen=True)
class RefinementDraw(Draw):
    """A draw that also says which rows learn to refine.

    Attributes:
        refines: (B,) bool.
    """

    refines: Tensor


@dataclass(frozen=True)
class MinimumIterative:
    """The objective: every second row is one of the refinement, so that both expectations weigh alike.

    Args:
        c: time of the refinement, in (0, 1).
    """

    c: float = 0.9

    def __post_init__(self) -> None:
        if not 0.0 < self.c < 1.0:
            raise ValueError(f"c must lie in (0, 1), got {self.c}")

    @property
    def needs(self) -> frozenset[Need]:
        """Nothing but the student."""
        return frozenset()

    def phases(self, total_steps: int) -> tuple[Phase, ...]:
        """One phase."""
        return (Phase("minimum_iterative", total_steps, self),)

    def draw(self, shape: torch.Size, progress: float, generator: torch.Generator) -> RefinementDraw:
        """Gaussian noise; t = 0, or c in the rows that refine."""
        refines = spread_rows(shape[0], 0.5).to(generator.device)
        return RefinementDraw(
            noise=torch.randn(shape, generator=generator, device=generator.device),
            t=self.c * refines.float(),
            d=torch.zeros(shape[0], device=generator.device),
            drop=None,
            refines=refines,
        )

    def loss(self, nets: Networks, batch: Batch, draw: Draw) -> Loss:
        """Both parts of the objective, with one student forward for all rows."""
        if not isinstance(draw, RefinementDraw):
            raise TypeError(f"the minimum-iterative objective needs its own draw, got {type(draw).__name__}")
        noised = Interpolant().point(draw.noise, batch.data, draw.t)
        refines = draw.refines.reshape(-1, *([1] * (noised.ndim - 1)))
        error = nets.student(torch.where(refines, noised, 0.0), draw.t, draw.d).to(batch.data.dtype) - batch.data
        square = mean_square(error, batch.loss_mask)
        per_row = square / torch.where(draw.refines, 1.0 - self.c, self.c).square()
        return Loss(
            per_row,
            {
                "regression_loss": Mean.over(square, ~draw.refines),
                "refinement_loss": Mean.over(square, draw.refines),
            },
        )

    def sampler(self, num_steps: int) -> RefiningSampler:
        """One evaluation (the regression alone) or two; further steps would repeat nothing that was trained.

        Raises:
            ValueError: num_steps is not positive.
        """
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}")
        return RefiningSampler(min(num_steps, 2), self.c)
