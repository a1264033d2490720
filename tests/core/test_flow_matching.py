"""Flow matching and Euler's method against a flow that is known in closed form."""

import pytest
import torch
from networks import Recorder, bind

from shortcut_policy.core.interpolant import expand_rows
from shortcut_policy.core.objectives.base import Batch, Networks
from shortcut_policy.core.objectives.flow_matching import FlowMatching


def gaussian_velocity(scale):
    """E[x_1 - x_0 | x_t] for x_1 ~ N(0, scale^2): the marginal velocity is linear in x."""

    def velocity(x, t, d):
        t = expand_rows(t, x)
        return x * (scale**2 * t - (1 - t)) / (scale**2 * t**2 + (1 - t) ** 2)

    return velocity


def test_euler_converges_at_first_order_to_the_exact_flow():
    """The flow of a Gaussian is x_1 = scale x_0; halving the step halves the error."""
    noise = torch.randn(100, 3, dtype=torch.float64)
    errors = [
        (FlowMatching().sampler(n)(gaussian_velocity(3.0), noise) - 3.0 * noise).abs().max().item()
        for n in (64, 128, 256)
    ]
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.1)
    assert errors[1] / errors[2] == pytest.approx(2.0, rel=0.1)


def test_the_minimiser_is_the_marginal_velocity():
    """Among a x + b, fitted by least squares at t = 1/2 to the objective's own targets, the known velocity wins."""
    objective, scale, rows = FlowMatching(), 2.0, 200_000
    generator = torch.Generator().manual_seed(0)
    draw = objective.draw(torch.Size((rows, 1)), 0.0, generator)
    data = scale * torch.randn(rows, 1, generator=generator)
    near = (draw.t - 0.5).abs() < 0.02
    t = draw.t[near, None]
    x = (1 - t) * draw.noise[near] + t * data[near]
    target = data[near] - draw.noise[near]
    slope = (x * target).sum() / (x * x).sum()
    expected = gaussian_velocity(scale)(torch.ones(1, 1), torch.tensor([0.5]), None)
    assert slope.item() == pytest.approx(expected.item(), abs=0.05)


@pytest.mark.parametrize("shape", [(16, 2), (4, 8, 8)])
def test_loss_is_the_equation(shape):
    network = Recorder(dtype=torch.float64)
    objective = FlowMatching(sigma_min=0.1)
    draw = objective.draw(torch.Size((6, *shape)), 0.0, torch.Generator().manual_seed(0))
    data = torch.randn(6, *shape, dtype=torch.float64)
    loss = objective.loss(Networks(bind(network)), Batch(data), draw)
    for row in range(6):
        t = draw.t[row].double()
        x = (1 - 0.9 * t) * draw.noise[row] + t * data[row]
        a, b, _, _ = network.weight
        expected = (torch.tanh(a * x + b * t) - (data[row] - 0.9 * draw.noise[row])).square().mean()
        torch.testing.assert_close(loss.per_row[row], expected, rtol=1e-6, atol=1e-6)
    assert not network.calls[0][2].any(), "d is always 0"


def test_every_step_is_told_to_be_the_flow():
    network = Recorder()
    FlowMatching().sampler(5)(bind(network), torch.randn(2, 4))
    assert [t[0].item() for _, t, _ in network.calls] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8])
    assert not any(d.any() for _, _, d in network.calls)


def test_dropping_conditions_needs_a_null_condition():
    objective = FlowMatching(condition_dropout=0.5)
    draw = objective.draw(torch.Size((8, 4)), 0.0, torch.Generator())
    with pytest.raises(ValueError, match="null condition"):
        objective.loss(Networks(bind(Recorder(), torch.rand(8))), Batch(torch.randn(8, 4), torch.rand(8)), draw)


def test_zero_steps_are_refused():
    with pytest.raises(ValueError, match="0"):
        FlowMatching().sampler(0)
