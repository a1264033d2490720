"""The linear part against least squares, and its effect on losses and samples."""

import pytest
import torch
from networks import bind

from shortcut_policy.core.objectives.base import Batch, Networks
from shortcut_policy.core.objectives.flow_matching import FlowMatching
from shortcut_policy.core.objectives.shortcut import Shortcut
from shortcut_policy.core.preconditioning import Preconditioning


class Raw(torch.nn.Module):
    """A network that is a given function."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def encode(self, condition):
        return condition

    def forward(self, x, t, d, encoded):
        return self.function(x, t, d)


def zero(x, t, d):
    return torch.zeros_like(x)


def identity(x, t, d):
    return x


@pytest.mark.parametrize("sigma", [0.2, 1.3])
@pytest.mark.parametrize("t", [0.0, 0.4, 1.0])
def test_the_linear_part_is_the_least_squares_guess_of_the_velocity(sigma, t):
    generator = torch.Generator().manual_seed(0)
    noise, data = torch.randn(2, 400_000, dtype=torch.float64, generator=generator)
    data = sigma * data
    x, v = (1 - t) * noise + t * data, data - noise
    slope = (x @ v) / (x @ x)
    times = torch.full_like(x, t)
    s = Preconditioning(sigma).velocity(zero)(x, times, times)
    torch.testing.assert_close(s, slope * x, rtol=0, atol=0.02)
    rest = (v - s).var()
    unit = Preconditioning(sigma).velocity(lambda x, t, d: torch.ones_like(x))(x, times, times) - s
    torch.testing.assert_close(rest, (sigma * unit[0]).square(), rtol=0.01, atol=0)
    inputs = []
    Preconditioning(sigma).velocity(lambda x, t, d: inputs.append(x) or x)(x, times, times)
    assert inputs[0].var().item() == pytest.approx(1.0, rel=0.01)


def test_one_step_from_noise_lands_on_the_output_whatever_the_noise():
    noise, output = torch.randn(2, 5, 16, 3, dtype=torch.float64)
    for objective in (Shortcut(base_steps=8, sigma_data=0.3), FlowMatching(sigma_data=0.3)):
        sample = objective.sampler(1)(lambda x, t, d: output, noise)
        torch.testing.assert_close(sample, output)


def test_samples_and_losses_use_the_same_velocity():
    """A network that predicts what is left of a known velocity: with it, the loss is 0 and every sampler arrives."""
    sigma, star = 0.5, torch.tensor([0.7, -0.2], dtype=torch.float64)

    def remainder(x, t, d):  # x is scaled: of the exact shortcut (x* - x)/(1 - t) of a single point
        rows = t.reshape(-1, 1, 1)
        variance = (1 - rows) ** 2 + rows**2 * sigma**2
        x = x * variance.sqrt()
        exact = (star - x) / (1 - rows)
        return (exact - (rows * sigma**2 - (1 - rows)) / variance * x) * variance.sqrt()

    shape = torch.Size((64, 4, 2))
    for objective in (
        Shortcut(base_steps=8, bootstrap_fraction=0.5, sigma_data=sigma),
        Shortcut(base_steps=8, bootstrap_fraction=0.5, sigma_data=sigma, bootstrap_teacher="online"),
        FlowMatching(sigma_data=sigma),
    ):
        draw = objective.draw(shape, 0.0, torch.Generator().manual_seed(1))
        draw = type(draw)(**{**vars(draw), "noise": draw.noise.double(), "t": draw.t.double(), "d": draw.d.double()})
        network = bind(Raw(remainder))
        loss = objective.loss(Networks(network, network), Batch(star.expand(shape)), draw)
        assert loss.per_row.max() < 1e-10
        for steps in (1, 2, 8):
            sample = objective.sampler(steps)(remainder, draw.noise)
            torch.testing.assert_close(sample, star.expand(shape))
            assert not torch.allclose(objective.sampler(steps)(identity, draw.noise), star.expand(shape))


def test_without_a_sigma_the_network_is_the_velocity():
    assert Preconditioning().velocity(identity) is identity


@pytest.mark.parametrize(
    "make", [Preconditioning, lambda s: Shortcut(sigma_data=s), lambda s: FlowMatching(sigma_data=s)]
)
@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan")])
def test_a_sigma_out_of_range_is_quoted(make, sigma):
    with pytest.raises(ValueError, match=f"sigma_data must be positive or null, got {sigma}"):
        make(sigma)
