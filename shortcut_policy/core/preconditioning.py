"""The part of the velocity that needs no network, and scales for the rest (after EDM: arXiv 2206.00364, table 1).

For data x_1 of mean 0 and variance sigma^2, and noise x_0 of variance 1, on the path x_t = (1 - t) x_0 + t x_1, the
linear guess of the velocity v = x_1 - x_0 from x_t that has the least mean square error is c_skip x_t with

    V      = Var(x_t) = (1 - t)^2 + t^2 sigma^2
    c_skip = Cov(v, x_t) / V = (t sigma^2 - (1 - t)) / V

and what it leaves over has the variance sigma^2 / V (appendix B.6, there for another path). The network predicts this
remainder, in units of V^-1/2:

    s(x, t, d) = c_skip x + V^-1/2 F(V^-1/2 x, t, d)

At t = 0 that is s = -x_0 + F: one step lands at x_0 + s = F. A network that must itself give -x_0 leaves a share of
the noise in the sample wherever it gives it inexactly; F depends on the noise only as far as it has learned to.

sigma is the spread of the data *that the condition leaves open*: what an observation says of the next actions is known
when x_t is still noise. The smaller it is, the longer the network predicts the data (sigma = 0: c_skip = -1/(1 - t)).
"""

from dataclasses import dataclass

from torch import Tensor

from shortcut_policy.core.interpolant import expand_rows
from shortcut_policy.core.network import Predictor


@dataclass(frozen=True)
class Preconditioning:
    """Turns the raw output of a network into a velocity.

    Args:
        sigma_data: sigma, > 0; None takes the raw output for the velocity.

    Raises:
        ValueError: it is not positive.
    """

    sigma_data: float | None = None

    def __post_init__(self) -> None:
        if self.sigma_data is not None and not self.sigma_data > 0:
            raise ValueError(f"sigma_data must be positive or null, got {self.sigma_data}")

    def velocity(self, network: Predictor) -> Predictor:
        """The velocity s(x, t, d) of a network that predicts F(x, t, d)."""
        if self.sigma_data is None:
            return network
        data_variance = self.sigma_data**2

        def s(x: Tensor, t: Tensor, d: Tensor) -> Tensor:
            rows = expand_rows(t, x)  # t (B, 1, ..., 1)
            variance = (1.0 - rows) ** 2 + rows**2 * data_variance
            skip = (rows * data_variance - (1.0 - rows)) / variance
            scale = variance.rsqrt()
            return skip * x + scale * network(scale * x, t, d).to(x.dtype)

        return s

    def weight(self, t: Tensor) -> Tensor:
        """V(t) over its mean on [0, 1], (1 + sigma^2) / 3: (B,); at t = 0 that is 3 / (1 + sigma^2).

        An error of the velocity, weighted so, counts like one of F, of which every time has as much to learn. Without
        weights the times near the data count most, where 1 / sigma^2 times as much of the velocity is left over as near
        the noise, and where no network can tell it.

        Raises:
            ValueError: there is no sigma.
        """
        if self.sigma_data is None:
            raise ValueError("without sigma_data there is no prediction to be weighted")
        data_variance = self.sigma_data**2
        return ((1.0 - t) ** 2 + t**2 * data_variance) * (3.0 / (1.0 + data_variance))
