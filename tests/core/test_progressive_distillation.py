"""Progressive distillation: its stages, their equation, and a chain of exact halvings."""

import pytest
import torch
from networks import Recorder, SinglePoint, bind

from shortcut_policy.core.objectives.base import Batch, Networks
from shortcut_policy.core.objectives.flow_matching import FlowMatching
from shortcut_policy.core.objectives.progressive_distillation import HalvingStage, ProgressiveDistillation

SHAPE = torch.Size((64, 4, 2))


def draw_for(objective, seed=0):
    draw = objective.draw(SHAPE, 0.0, torch.Generator().manual_seed(seed))
    return type(draw)(draw.noise.double(), draw.t.double(), draw.d.double(), None)


def test_the_exact_flow_of_a_single_point_has_no_loss_in_any_stage_and_arrives():
    star = torch.tensor([0.7, -0.2], dtype=torch.float64)
    exact, objective = bind(SinglePoint(star)), ProgressiveDistillation(base_steps=16)
    for stage in (*objective.stages, objective):
        draw = draw_for(stage)
        loss = stage.loss(Networks(exact, teacher=exact), Batch(star.expand(SHAPE)), draw)
        assert loss.per_row.max() < 1e-15
    for steps in (1, 4):
        torch.testing.assert_close(objective.sampler(steps)(exact, draw.noise), star.expand(SHAPE))


@pytest.mark.parametrize("level", [0, 2])
def test_every_row_is_the_equation(level):
    student, teacher = Recorder(0, torch.float64), Recorder(1, torch.float64)
    stage, data = HalvingStage(level), torch.randn(SHAPE, dtype=torch.float64)
    draw = draw_for(stage)
    assert set(draw.t.tolist()) == {i / 2**level for i in range(2**level)}
    loss = stage.loss(Networks(bind(student), teacher=bind(teacher)), Batch(data), draw).per_row

    def s(network, x, t):
        a, b, _, _ = network.weight
        return torch.tanh(a * x + b * t)

    half = 0.5 / 2**level
    for row in range(len(data)):
        t = draw.t[row]
        x = (1 - t) * draw.noise[row] + t * data[row]
        middle = x + half * s(teacher, x, t)
        arrived = middle + half * s(teacher, middle, t + half)
        torch.testing.assert_close(loss[row], (s(student, x, t) - (arrived - x) / (2 * half)).square().mean())
    loss.mean().backward()
    assert teacher.weight.grad is None
    assert not any(d.any() for _, _, d in student.calls + teacher.calls)


def test_phases_are_the_flow_and_then_the_halvings_of_equal_length():
    phases = ProgressiveDistillation(base_steps=8, teacher_fraction=0.5, condition_dropout=0.2).phases(20)
    assert [(phase.name, phase.steps, phase.teacher, phase.student) for phase in phases] == [
        ("teacher", 10, "keep", "keep"),
        ("4_steps", 3, "ema", "teacher"),
        ("2_steps", 3, "ema", "teacher"),
        ("1_steps", 4, "ema", "teacher"),
    ]
    assert phases[0].objective == FlowMatching(condition_dropout=0.2)
    given = ProgressiveDistillation(base_steps=4, teacher_fraction=0.0).phases(10)
    assert [(phase.name, phase.steps, phase.teacher) for phase in given] == [
        ("2_steps", 5, "keep"),
        ("1_steps", 5, "ema"),
    ]
    with pytest.raises(ValueError, match=r"4 updates, 2 of them for the teacher, are too few for 3 stages"):
        ProgressiveDistillation(base_steps=8).phases(4)


def test_the_first_stage_alone_guides():
    objective = ProgressiveDistillation(base_steps=8, guidance=3.0, condition_dropout=0.1)
    assert [stage.guidance for stage in objective.stages] == [3.0, 1.0, 1.0]
    condition, null = torch.ones(64, dtype=torch.float64), torch.zeros(64, dtype=torch.float64)
    student, teacher = Recorder(0, torch.float64), Recorder(1, torch.float64)
    nets = Networks(bind(student, condition, null), teacher=bind(teacher, condition, null))
    stage, data = HalvingStage(0, guidance=3.0), torch.randn(SHAPE, dtype=torch.float64)
    draw = draw_for(stage)
    loss = stage.loss(nets, Batch(data, condition, null), draw).per_row

    def guided(x, t):
        a, b, _, e = teacher.weight
        return torch.tanh(a * x + b * t) + 3 * e * x  # null + 3 (conditional - null)

    middle = draw.noise + 0.5 * guided(draw.noise, 0.0)
    wanted = middle + 0.5 * guided(middle, 0.5) - draw.noise
    a, _, _, e = student.weight
    error = torch.tanh(a * draw.noise) + e * draw.noise - wanted
    torch.testing.assert_close(loss, error.square().flatten(1).mean(dim=1))


@pytest.mark.parametrize(
    ("options", "quoted"),
    [
        ({"base_steps": 1}, "1"),
        ({"base_steps": 12}, "12"),
        ({"teacher_fraction": 1.0}, "1.0"),
        ({"guidance": 2.0}, "2.0"),
    ],
)
def test_wrong_options_are_quoted(options, quoted):
    with pytest.raises(ValueError, match=quoted):
        ProgressiveDistillation(**options)
