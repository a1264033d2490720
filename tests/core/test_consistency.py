"""Consistency training and distillation: exact solutions, the equations row by row, and the sampler."""

from dataclasses import replace

import pytest
import torch
from networks import Recorder, SinglePoint, bind

from shortcut_policy.core.objectives.base import Batch, Networks
from shortcut_policy.core.objectives.consistency_distillation import ConsistencyDistillation
from shortcut_policy.core.objectives.consistency_training import ConsistencyTraining
from shortcut_policy.core.sampler import ConsistencySampler

SHAPE = torch.Size((64, 4, 2))
STAR = torch.tensor([0.7, -0.2], dtype=torch.float64)


def draw_for(objective, progress=1.0, seed=0):
    draw = objective.draw(SHAPE, progress, torch.Generator().manual_seed(seed))
    values = {name: v.double() if torch.is_floating_point(v) else v for name, v in vars(draw).items() if v is not None}
    return type(draw)(**{"drop": None, **values})


def s(network, x, t):
    """The velocity that `Recorder` predicts for d = 0."""
    a, b, _, _ = network.weight
    return torch.tanh(a * x + b * t)


@pytest.mark.parametrize("objective", [ConsistencyTraining(base_steps=8), ConsistencyDistillation(base_steps=8)])
def test_the_exact_consistency_function_of_a_single_point_has_no_loss_and_arrives(objective):
    exact = bind(SinglePoint(STAR))
    for progress in (0.0, 0.5, 1.0):
        draw = draw_for(objective, progress)
        size = getattr(draw, "distance", torch.full_like(draw.t, 1 / 8))
        # where t + d = 1 this network divides 0 by 0; there the end point is x itself, whatever a network says
        kept = draw.rows((draw.t + size < 1).nonzero().squeeze(1))
        assert len(kept.t) > 10 or size[0] == 1
        loss = objective.loss(Networks(exact, exact, exact), Batch(STAR.expand(kept.noise.shape)), kept)
        assert (loss.per_row < 1e-25).all()
    noise = draw_for(objective).noise
    for steps in (1, 3):
        sampler = objective.sampler(steps)
        again = torch.randn(sampler.step_noises, *SHAPE, dtype=torch.float64)
        torch.testing.assert_close(sampler(exact, noise, again), STAR.expand(SHAPE))


def test_every_row_of_consistency_training_is_the_equation():
    student, target = Recorder(0, torch.float64), Recorder(1, torch.float64)
    objective, data = ConsistencyTraining(base_steps=8), torch.randn(SHAPE, dtype=torch.float64)
    draw = draw_for(objective)
    loss = objective.loss(Networks(bind(student), bind(target)), Batch(data), draw).per_row
    for row in range(len(data)):
        t, later = draw.t[row], draw.t[row] + 1 / 8
        x_t, x_later = ((1 - time) * draw.noise[row] + time * data[row] for time in (t, later))
        end = x_later + (1 - later) * s(target, x_later, later)
        wanted = (end - x_t) / (1 - t)
        torch.testing.assert_close(loss[row], (s(student, x_t, t) - wanted).square().mean())
    loss.mean().backward()
    assert target.weight.grad is None
    assert student.weight.grad is not None


def test_every_row_of_consistency_distillation_is_the_equation():
    student, target, teacher = (Recorder(seed, torch.float64) for seed in range(3))
    objective, data = ConsistencyDistillation(base_steps=16), torch.randn(SHAPE, dtype=torch.float64)
    draw = draw_for(objective)
    loss = objective.loss(Networks(bind(student), bind(target), bind(teacher)), Batch(data), draw).per_row
    for row in range(len(data)):
        t = draw.t[row]
        x_t = (1 - t) * draw.noise[row] + t * data[row]
        x_next = x_t + s(teacher, x_t, t) / 16
        end = x_next + (1 - t - 1 / 16) * s(target, x_next, t + 1 / 16)
        torch.testing.assert_close(loss[row], (s(student, x_t, t) - (end - x_t) / (1 - t)).square().mean())
    loss.mean().backward()
    assert target.weight.grad is None
    assert teacher.weight.grad is None


class Encoding(Recorder):
    """A network whose encoder has a weight."""

    def __init__(self):
        super().__init__(0, torch.float64)
        self.scale = torch.nn.Parameter(torch.ones((), dtype=torch.float64))

    def encode(self, condition):
        return self.scale * super().encode(condition)


@pytest.mark.parametrize("target", ["ema", "online"])
def test_the_encoder_learns_whoever_makes_the_target(target):
    condition, data = torch.ones(64, dtype=torch.float64), torch.randn(SHAPE, dtype=torch.float64)
    objective, gradients = ConsistencyTraining(base_steps=8, target=target), []
    for _ in range(2):
        network = Encoding()
        nets = Networks(bind(network, condition), bind(Encoding(), condition))
        objective.loss(nets, Batch(data, condition), draw_for(objective)).per_row.mean().backward()
        gradients.append(network.scale.grad)
    assert gradients[0].abs() > 1e-3
    torch.testing.assert_close(*gradients)


def test_the_first_stage_of_consistency_training_regresses_the_data_and_the_last_has_the_smallest_step():
    objective = ConsistencyTraining(base_steps=8)
    student, target, data = Recorder(0, torch.float64), Recorder(1, torch.float64), torch.randn(SHAPE).double()
    draw = draw_for(objective, 0.0)
    assert not draw.t.any()
    loss = objective.loss(Networks(bind(student), bind(target)), Batch(data), draw).per_row
    error = s(student, draw.noise, torch.zeros(())) - (data - draw.noise)
    torch.testing.assert_close(loss, error.square().flatten(1).mean(dim=1))
    sizes = [draw_for(objective, progress).distance[0].item() for progress in (0.0, 0.24, 0.26, 0.51, 0.76, 1.0)]
    assert sizes == [1, 1, 1 / 2, 1 / 4, 1 / 8, 1 / 8]


def test_guidance_and_dropout_reach_what_they_should():
    condition, null = torch.ones(64, dtype=torch.float64), torch.zeros(64, dtype=torch.float64)
    student, target, teacher = (Recorder(seed, torch.float64) for seed in range(3))
    nets = Networks(*(bind(network, condition, null) for network in (student, target, teacher)))
    data = torch.randn(SHAPE, dtype=torch.float64)

    objective = ConsistencyDistillation(base_steps=16, guidance=3.0, condition_dropout=0.1)
    assert objective.phases(100)[0].objective.condition_dropout == 0.1
    draw = draw_for(objective)
    loss = objective.loss(nets, Batch(data, condition, null), draw).per_row
    x_t = torch.lerp(draw.noise, data, draw.t[:, None, None])
    both = [s(teacher, x_t, draw.t[:, None, None]) + level * teacher.weight[3] * x_t for level in (0, 1)]
    x_next = x_t + (both[0] + 3 * (both[1] - both[0])) / 16
    later = draw.t[:, None, None] + 1 / 16
    end = x_next + (1 - later) * (s(target, x_next, later) + target.weight[3] * x_next)
    wanted = (end - x_t) / (1 - draw.t[:, None, None])
    error = s(student, x_t, draw.t[:, None, None]) + student.weight[3] * x_t - wanted
    torch.testing.assert_close(loss, error.square().flatten(1).mean(dim=1))

    training = ConsistencyTraining(base_steps=8, condition_dropout=0.5)
    draw = draw_for(training)
    assert 10 < draw.drop.sum() < 54
    dropped = training.loss(nets, Batch(data, condition, null), draw).per_row
    kept = torch.where(draw.drop, null, condition)
    nets = Networks(bind(student, kept), bind(target, kept))
    plain = training.loss(nets, Batch(data), replace(draw, drop=None)).per_row
    torch.testing.assert_close(dropped, plain)


def test_the_sampler_noises_the_end_point_again():
    network = Recorder(0, torch.float64)
    noise, again = torch.randn(3, 2, dtype=torch.float64), torch.randn(1, 3, 2, dtype=torch.float64)
    sampler = ConsistencySampler([0.0, 0.5])
    assert (sampler.evaluations, sampler.step_noises) == (2, 1)
    first = noise + s(network, noise, 0.0)
    x = 0.5 * again[0] + 0.5 * first
    torch.testing.assert_close(sampler(bind(network), noise, again), x + 0.5 * s(network, x, 0.5))
    assert not any(d.any() for _, _, d in network.calls)


@pytest.mark.parametrize(
    ("make", "options", "quoted"),
    [
        (ConsistencyTraining, {"base_steps": 12}, "12"),
        (ConsistencyTraining, {"target": "frozen"}, "'frozen'"),
        (ConsistencyTraining, {"condition_dropout": 1.0}, "1.0"),
        (ConsistencyDistillation, {"base_steps": 0}, "0"),
        (ConsistencyDistillation, {"teacher_fraction": 1.0}, "1.0"),
        (ConsistencyDistillation, {"condition_dropout": -1.0}, "-1.0"),
    ],
)
def test_wrong_options_are_quoted(make, options, quoted):
    with pytest.raises(ValueError, match=quoted):
        make(**options)
