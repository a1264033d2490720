"""Few-step integration from noise to data."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from shortcut_policy.core.network import Predictor
from shortcut_policy.core.preconditioning import Preconditioning


@dataclass(frozen=True)
class Step:
    """One step of the sampler: it starts at `t`, advances by `size`, and the network is told `d`."""

    t: float
    size: float
    d: float


@dataclass(frozen=True)
class EulerSampler:
    """x <- x + size * s(x, t, d), for the given steps, from t = 0 to t = 1.

    With a network that knows its step size this is the shortcut sampler (arXiv 2410.12557, algorithm 2), with
    d = 0 in every step it is Euler's method on the flow. Pure: the same predictor and noise give the same sample.
    The step count is fixed, so that it can be captured in a graph or exported.

    Attributes:
        steps: in their order.
        preconditioning: makes the velocity s of what the network predicts.
    """

    steps: Sequence[Step]
    preconditioning: Preconditioning = field(default_factory=Preconditioning)
    step_noises = 0

    @property
    def evaluations(self) -> int:
        """One for each step."""
        return len(self.steps)

    def __call__(self, predict: Predictor, noise: Tensor, step_noise: Tensor | None = None) -> Tensor:
        """Map noise (B, *S) to a sample (B, *S) with one network evaluation per step; there is no step noise."""
        s = self.preconditioning.velocity(predict)
        x = noise
        rows = noise.shape[0]
        for step in self.steps:
            t = torch.full((rows,), step.t, device=noise.device)
            d = torch.full((rows,), step.d, device=noise.device)
            x = x + step.size * s(x, t, d).to(x.dtype)
        return x
