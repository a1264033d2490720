"""MeanFlow: exact solutions, its derivative against finite differences, and the networks it must run under."""

from dataclasses import replace

import pytest
import torch
from networks import Recorder, SinglePoint, bind

from shortcut_policy.core.objectives.base import Batch, Networks
from shortcut_policy.core.objectives.flow_matching import FlowMatching
from shortcut_policy.core.objectives.mean_flow import MeanFlow, mean_flow_target
from shortcut_policy.core.preconditioning import Preconditioning
from shortcut_policy.nn.observation_encoder import ObservationEncoder
from shortcut_policy.nn.policy_network import PolicyNetwork

SHAPE = torch.Size((64, 4, 2))


def draw_for(objective, seed=0):
    draw = objective.draw(SHAPE, 0.0, torch.Generator().manual_seed(seed))
    values = {name: v.double() if torch.is_floating_point(v) else v for name, v in vars(draw).items() if v is not None}
    return type(draw)(**{"drop": None, **values})


def finite_difference(predict, x, t, d, v, step=1e-6):
    """d/dt of s along (x_t, t) at a fixed end t + d, by a central difference."""
    back, forth = (predict(x + sign * step * v, t + sign * step, d - sign * step) for sign in (-1, 1))
    return (forth - back) / (2 * step)


@pytest.mark.parametrize("weight_power", [0.0, 1.0])
def test_the_exact_flow_of_a_single_point_has_no_loss_and_arrives(weight_power):
    star = torch.tensor([0.7, -0.2], dtype=torch.float64)
    exact, objective = bind(SinglePoint(star)), MeanFlow(average_fraction=0.5, weight_power=weight_power)
    draw = draw_for(objective)
    assert objective.loss(Networks(exact), Batch(star.expand(SHAPE)), draw).per_row.max() < 1e-15
    for steps in (1, 3, 8):
        torch.testing.assert_close(objective.sampler(steps)(exact, draw.noise), star.expand(SHAPE))


def test_the_target_is_the_equation_by_finite_differences():
    network, objective = Recorder(0, torch.float64), MeanFlow(average_fraction=0.5)
    draw, data = draw_for(objective), torch.randn(SHAPE, dtype=torch.float64)
    x_t, v = torch.lerp(draw.noise, data, draw.t[:, None, None]), data - draw.noise
    bound = bind(network)
    target = mean_flow_target(bound, bound, x_t, draw.t, draw.d, v)
    expected = v + draw.d[:, None, None] * finite_difference(bound, x_t, draw.t, draw.d, v)
    torch.testing.assert_close(target, expected, rtol=1e-7, atol=1e-8)
    assert not target.requires_grad


@pytest.mark.parametrize("sigma_data", [None, 0.5])
def test_the_unet_differentiates_itself(sigma_data):
    torch.manual_seed(0)
    encoder = ObservationEncoder({"state": 3}, steps=2)
    network = PolicyNetwork(encoder, 2, 8, "unet1d", {"widths": [8, 16], "step_embedding_dim": 16}).double()
    objective = MeanFlow(average_fraction=0.5, sigma_data=sigma_data, weight_power=0.0)
    generator = torch.Generator().manual_seed(0)
    shape = torch.Size((16, 8, 2))
    draw = objective.draw(shape, 0.0, generator)
    draw = type(draw)(draw.noise.double(), draw.t.double(), draw.d.double(), None, draw.averages)
    data = torch.randn(shape, generator=generator).double()
    condition = {"state": torch.randn(16, 2, 3, generator=generator).double()}
    bound = bind(network, condition)
    loss = objective.loss(Networks(bound), Batch(data, condition), draw).per_row

    s = Preconditioning(sigma_data).velocity(bind(network, condition))
    x_t, v = torch.lerp(draw.noise, data, draw.t[:, None, None]), data - draw.noise
    with torch.no_grad():
        target = v + draw.d[:, None, None] * finite_difference(s, x_t, draw.t, draw.d, v)
        expected = (s(x_t, draw.t, draw.d) - target).square().flatten(1).mean(dim=1)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-7)
    loss.mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_the_gradient_goes_through_the_prediction_alone():
    network, objective = Recorder(0, torch.float64), MeanFlow(average_fraction=1.0, weight_power=0.0)
    draw, data = draw_for(objective), torch.randn(SHAPE, dtype=torch.float64)
    objective.loss(Networks(bind(network)), Batch(data), draw).per_row.mean().backward()
    x_t, v = torch.lerp(draw.noise, data, draw.t[:, None, None]), data - draw.noise
    copy = Recorder(0, torch.float64)
    target = mean_flow_target(bind(network), bind(network), x_t, draw.t, draw.d, v)
    (bind(copy)(x_t, draw.t, draw.d) - target).square().mean().backward()
    torch.testing.assert_close(network.weight.grad, copy.weight.grad)


def test_without_averages_it_is_flow_matching():
    network, data = Recorder(0, torch.float64), torch.randn(SHAPE, dtype=torch.float64)
    objective = MeanFlow(average_fraction=0.0, weight_power=0.0)
    draw = draw_for(objective)
    plain = FlowMatching().loss(Networks(bind(network)), Batch(data), draw).per_row
    torch.testing.assert_close(objective.loss(Networks(bind(network)), Batch(data), draw).per_row, plain)


def test_rows_are_weighted_by_their_own_error():
    network, data = Recorder(0, torch.float64), torch.randn(SHAPE, dtype=torch.float64)
    draw = draw_for(MeanFlow())
    plain, weighted = (
        MeanFlow(weight_power=power, weight_offset=0.5).loss(Networks(bind(network)), Batch(data), draw)
        for power in (0.0, 2.0)
    )
    torch.testing.assert_close(weighted.per_row, plain.per_row / (plain.per_row + 0.5) ** 2)
    assert weighted.metrics["flow_loss"] == plain.metrics["flow_loss"], "the log holds the unweighted error"


def test_guidance_is_trained_in_where_the_condition_is_kept():
    condition, null = torch.ones(64, dtype=torch.float64), torch.zeros(64, dtype=torch.float64)
    network, data = Recorder(0, torch.float64), torch.randn(SHAPE, dtype=torch.float64)
    objective = MeanFlow(average_fraction=0.0, weight_power=0.0, guidance=3.0, condition_dropout=0.5)
    draw = draw_for(objective)
    loss = objective.loss(Networks(bind(network, condition, null)), Batch(data, condition, null), draw).per_row
    a, b, _, e = network.weight
    for row in range(64):
        t = draw.t[row]
        x, v = torch.lerp(draw.noise[row], data[row], t), data[row] - draw.noise[row]
        s = torch.tanh(a * x + b * t)  # without condition
        prediction, wanted = (s, v) if draw.drop[row] else (s + e * x, 3 * v - 2 * s)
        torch.testing.assert_close(loss[row], (prediction - wanted).square().mean())


def test_guided_averages_are_those_of_the_guided_velocity():
    condition, null = torch.ones(64, dtype=torch.float64), torch.zeros(64, dtype=torch.float64)
    network, data = Recorder(0, torch.float64), torch.randn(SHAPE, dtype=torch.float64)
    objective = MeanFlow(average_fraction=1.0, weight_power=0.0, guidance=3.0, condition_dropout=0.1)
    draw = replace(draw_for(objective), drop=None)
    loss = objective.loss(Networks(bind(network, condition, null)), Batch(data, condition, null), draw).per_row
    x_t = torch.lerp(draw.noise, data, draw.t[:, None, None])
    with torch.no_grad():
        without = bind(network, null)(x_t, draw.t, torch.zeros_like(draw.d))
        v, predict = 3 * (data - draw.noise) - 2 * without, bind(network, condition)
        target = v + draw.d[:, None, None] * finite_difference(predict, x_t, draw.t, draw.d, v)
        expected = (predict(x_t, draw.t, draw.d) - target).square().flatten(1).mean(dim=1)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-6, atol=1e-7)


def test_drawn_rows_are_of_their_kind():
    draw = MeanFlow().draw(SHAPE, 0.0, torch.Generator().manual_seed(0))
    assert draw.averages.sum() == 16
    assert not draw.d[~draw.averages].any()
    assert (draw.d[draw.averages] > 0).all()
    assert ((draw.t + draw.d) <= 1).all()


def test_every_step_is_told_its_size():
    network = Recorder()
    MeanFlow().sampler(4)(bind(network), torch.randn(2, 3))
    assert [(t[0].item(), d[0].item()) for _, t, d in network.calls] == [(i / 4, 0.25) for i in range(4)]


@pytest.mark.parametrize(
    ("options", "quoted"),
    [
        ({"average_fraction": 1.5}, "1.5"),
        ({"weight_power": -1.0}, "-1.0"),
        ({"weight_offset": 0.0}, "0.0"),
        ({"condition_dropout": 1.0}, "1.0"),
        ({"guidance": 2.0}, "2.0"),
    ],
)
def test_wrong_options_are_quoted(options, quoted):
    with pytest.raises(ValueError, match=quoted):
        MeanFlow(**options)


def test_a_batch_without_averages_is_refused():
    with pytest.raises(ValueError, match=r"1 rows with average_fraction 0\.25"):
        MeanFlow().draw(torch.Size((1, 2)), 0.0, torch.Generator())
