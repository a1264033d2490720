"""Reflow and live reflow: their pairs, their rows, and what has a gradient."""

import pytest
import torch
from networks import Recorder, SinglePoint, bind

from shortcut_policy.core.objectives.base import Batch, Networks
from shortcut_policy.core.objectives.live_reflow import LiveReflow
from shortcut_policy.core.objectives.reflow import Reflow

SHAPE = torch.Size((64, 4, 2))
STAR = torch.tensor([0.7, -0.2], dtype=torch.float64)


def draw_for(objective, seed=0):
    draw = objective.draw(SHAPE, 0.0, torch.Generator().manual_seed(seed))
    values = {name: v.double() if torch.is_floating_point(v) else v for name, v in vars(draw).items() if v is not None}
    return type(draw)(**{"drop": None, **values})


def s(network, x, t, d=0.0):
    a, b, c, _ = network.weight
    return torch.tanh(a * x + b * t + c * d)


def euler(network, x, steps, level=0.0):
    for number in range(steps):
        x = x + (s(network, x, number / steps) + level * network.weight[3] * x) / steps
    return x


@pytest.mark.parametrize("objective", [Reflow(pair_steps=4), LiveReflow(pair_steps=4), LiveReflow(teacher="ema")])
def test_the_exact_flow_of_a_single_point_has_no_loss_and_arrives(objective):
    exact = bind(SinglePoint(STAR))
    draw = draw_for(objective)
    loss = objective.loss(Networks(exact, exact, exact), Batch(STAR.expand(SHAPE)), draw)
    assert loss.per_row.max() < 1e-15
    for steps in (1, 8):
        torch.testing.assert_close(objective.sampler(steps)(exact, draw.noise), STAR.expand(SHAPE))


def test_every_row_of_reflow_is_the_equation_and_the_data_do_not_matter():
    student, teacher = Recorder(0, torch.float64), Recorder(1, torch.float64)
    objective = Reflow(pair_steps=5)
    draw = draw_for(objective)
    losses = [
        objective.loss(Networks(bind(student), teacher=bind(teacher)), Batch(data), draw).per_row
        for data in (torch.zeros(SHAPE, dtype=torch.float64), torch.randn(SHAPE, dtype=torch.float64))
    ]
    torch.testing.assert_close(losses[0], losses[1])
    end, t = euler(teacher, draw.noise, 5), draw.t[:, None, None]
    error = s(student, (1 - t) * draw.noise + t * end, t) - (end - draw.noise)
    torch.testing.assert_close(losses[0], error.square().flatten(1).mean(dim=1))
    losses[0].mean().backward()
    assert teacher.weight.grad is None
    assert student.weight.grad is not None


@pytest.mark.parametrize("teacher", ["online", "ema"])
def test_every_row_of_live_reflow_is_the_equation(teacher):
    student, target = Recorder(0, torch.float64), Recorder(1, torch.float64)
    objective, data = LiveReflow(pair_steps=3, reflow_fraction=0.25, teacher=teacher), torch.randn(SHAPE).double()
    draw = draw_for(objective)
    assert draw.reflows.sum() == 16
    assert torch.equal(draw.d, draw.reflows.double()), "the flag"
    loss = objective.loss(Networks(bind(student), bind(target)), Batch(data), draw).per_row
    maker = student if teacher == "online" else target
    for row in range(len(data)):
        t, noise = draw.t[row], draw.noise[row]
        end = euler(maker, noise, 3) if draw.reflows[row] else data[row]
        error = s(student, (1 - t) * noise + t * end, t, draw.d[row]) - (end - noise)
        torch.testing.assert_close(loss[row], error.square().mean())
    assert sum(x.requires_grad or x.grad_fn is not None for x, _, _ in student.calls) == 0
    loss.mean().backward()
    assert target.weight.grad is None


def test_the_pairs_of_live_reflow_have_no_gradient():
    draws = {}
    for teacher in ("online", "ema"):  # the same weights make the pairs: the gradient must be the same
        student = Recorder(0, torch.float64)
        objective = LiveReflow(pair_steps=3, reflow_fraction=0.5, teacher=teacher)
        draw = draw_for(objective)
        nets = Networks(bind(student), bind(Recorder(0, torch.float64)))
        objective.loss(nets, Batch(torch.zeros(SHAPE, dtype=torch.float64)), draw).per_row.mean().backward()
        draws[teacher] = student.weight.grad
    torch.testing.assert_close(draws["online"], draws["ema"])


def test_guided_pairs_and_dropped_rows():
    condition, null = torch.ones(64, dtype=torch.float64), torch.zeros(64, dtype=torch.float64)
    student, teacher = Recorder(0, torch.float64), Recorder(1, torch.float64)
    nets = Networks(bind(student, condition, null), teacher=bind(teacher, condition, null))
    batch = Batch(torch.zeros(SHAPE, dtype=torch.float64), condition, null)
    objective = Reflow(pair_steps=1, guidance=2.0, condition_dropout=0.1)
    assert objective.phases(10)[0].objective.condition_dropout == 0.1
    draw = draw_for(objective)
    assert draw.drop is None, "the new student learns the guided flow alone"
    without, with_condition = (euler(teacher, draw.noise, 1, level) for level in (0.0, 1.0))
    end, t = without + 2 * (with_condition - without), draw.t[:, None, None]
    x_t = (1 - t) * draw.noise + t * end
    error = s(student, x_t, t) + student.weight[3] * x_t - (end - draw.noise)
    torch.testing.assert_close(objective.loss(nets, batch, draw).per_row, error.square().flatten(1).mean(dim=1))

    live = LiveReflow(pair_steps=1, condition_dropout=0.5, guidance=2.0)
    draw = draw_for(live)
    assert draw.drop.any()
    assert not (draw.drop & draw.reflows).any()
    loss = live.loss(nets, batch, draw).per_row
    for row in range(64):
        noise, t = draw.noise[row], draw.t[row]
        ends = [euler(student, noise, 1, level) for level in (0.0, 1.0)]
        end = ends[0] + 2 * (ends[1] - ends[0]) if draw.reflows[row] else torch.zeros_like(noise)
        x_t, level = (1 - t) * noise + t * end, 0.0 if draw.drop[row] else 1.0
        error = s(student, x_t, t, draw.d[row]) + level * student.weight[3] * x_t - (end - noise)
        torch.testing.assert_close(loss[row], error.square().mean())


def test_the_flag_of_the_sampler_follows_the_step_count():
    for steps, flag in ((1, 1.0), (7, 1.0), (8, 0.0), (16, 0.0)):
        network = Recorder()
        LiveReflow(pair_steps=8).sampler(steps)(bind(network), torch.randn(2, 3))
        assert {d[0].item() for _, _, d in network.calls} == {flag}


@pytest.mark.parametrize(
    ("make", "options", "quoted"),
    [
        (Reflow, {"pair_steps": 0}, "0"),
        (Reflow, {"teacher_fraction": 1.0}, "1.0"),
        (Reflow, {"condition_dropout": 1.0}, "1.0"),
        (LiveReflow, {"pair_steps": -1}, "-1"),
        (LiveReflow, {"reflow_fraction": 1.0}, "1.0"),
        (LiveReflow, {"condition_dropout": 1.0}, "1.0"),
        (LiveReflow, {"teacher": "frozen"}, "'frozen'"),
    ],
)
def test_wrong_options_are_quoted(make, options, quoted):
    with pytest.raises(ValueError, match=quoted):
        make(**options)


def test_a_batch_without_reflow_rows_is_refused():
    with pytest.raises(ValueError, match=r"1 rows with reflow_fraction 0\.125"):
        LiveReflow().draw(torch.Size((1, 2)), 0.0, torch.Generator())
