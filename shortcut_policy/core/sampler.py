"""Few-step integration from noise to data."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from shortcut_policy.core.interpolant import Interpolant, expand_rows
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


def end_point(velocity: Predictor, x: Tensor, t: Tensor) -> Tensor:
    """f(x, t) = x + (1 - t) s(x, t, 0): where the whole rest of the path, made in one step, ends (B, *S).

    The consistency function of arXiv 2303.01469 on the straight path; f(x, 1) = x, whatever the network says.
    """
    return x + expand_rows(1.0 - t, x) * velocity(x, t, torch.zeros_like(t)).to(x.dtype)


@dataclass(frozen=True)
class ConsistencySampler:
    """x_1 <- f(x_t, t), and noised again up to the next time (arXiv 2303.01469, algorithm 1, on the straight path).

    Attributes:
        times: at which f is asked, the first is 0.
        preconditioning: makes the velocity in f of what the network predicts.
    """

    times: Sequence[float]
    preconditioning: Preconditioning = field(default_factory=Preconditioning)

    @property
    def evaluations(self) -> int:
        """One for each time."""
        return len(self.times)

    @property
    def step_noises(self) -> int:
        """One for each time but the first."""
        return len(self.times) - 1

    def __call__(self, predict: Predictor, noise: Tensor, step_noise: Tensor | None = None) -> Tensor:
        """Map noise (B, *S) and, with more than one step, step noise (steps - 1, B, *S) to a sample (B, *S)."""
        s = self.preconditioning.velocity(predict)
        x, zero = noise, noise.new_zeros(noise.shape[0])
        for number, time in enumerate(self.times):
            if number > 0:
                assert step_noise is not None
                x = Interpolant().point(step_noise[number - 1], x, zero + time)
            x = end_point(s, x, zero + time)
        return x
