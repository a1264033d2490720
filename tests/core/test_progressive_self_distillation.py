"""Self-distillation with a random split: exact solutions, explicit parts, and the shortcut as its special case."""

import pytest
import torch
from networks import Recorder, SinglePoint, bind

from shortcut_policy.core.objectives.base import Batch, Networks
from shortcut_policy.core.objectives.progressive_self_distillation import ProgressiveSelfDistillation, split_target
from shortcut_policy.core.objectives.shortcut import bootstrap_target
from shortcut_policy.core.steps import DyadicSteps

SHAPE = torch.Size((64, 4, 2))


def draw_for(objective, seed=0):
    draw = objective.draw(SHAPE, 0.0, torch.Generator().manual_seed(seed))
    values = {name: v.double() if torch.is_floating_point(v) else v for name, v in vars(draw).items() if v is not None}
    return type(draw)(**{"drop": None, **values})


@pytest.mark.parametrize("teacher", ["ema", "online"])
def test_the_exact_flow_map_of_a_single_point_has_no_loss_and_arrives(teacher):
    star = torch.tensor([0.7, -0.2], dtype=torch.float64)
    objective = ProgressiveSelfDistillation(distilled_fraction=0.5, teacher=teacher)
    exact = bind(SinglePoint(star))
    draw = draw_for(objective)
    assert objective.loss(Networks(exact, exact), Batch(star.expand(SHAPE)), draw).per_row.max() < 1e-15
    for steps in (1, 3, 8):
        torch.testing.assert_close(objective.sampler(steps)(exact, draw.noise), star.expand(SHAPE))


def test_every_row_is_the_equation():
    objective = ProgressiveSelfDistillation(distilled_fraction=0.5)
    student, target = Recorder(0, torch.float64), Recorder(1, torch.float64)
    draw, data = draw_for(objective), torch.randn(SHAPE, dtype=torch.float64)
    loss = objective.loss(Networks(bind(student), bind(target)), Batch(data), draw).per_row

    def s(network, x, t, d):
        a, b, c, _ = network.weight
        return torch.tanh(a * x + b * t + c * d)

    for row in range(len(data)):
        t, d, h = draw.t[row], draw.d[row], draw.split[row]
        x = (1 - t) * draw.noise[row] + t * data[row]
        expected = data[row] - draw.noise[row]
        if draw.distilled[row]:
            first = s(target, x, t, h * d)
            second = s(target, x + h * d * first, t + h * d, (1 - h) * d)
            expected = h * first + (1 - h) * second
        torch.testing.assert_close(loss[row], (s(student, x, t, d) - expected).square().mean())
    loss.mean().backward()
    assert target.weight.grad is None
    assert len(student.calls) == 1, "one student forward for all rows"


def test_a_split_in_the_middle_is_the_shortcut():
    network = bind(Recorder(3, torch.float64))
    x = torch.randn(6, 4, 2, dtype=torch.float64)
    t, double = torch.full((6,), 0.25, dtype=torch.float64), torch.full((6,), 0.5, dtype=torch.float64)
    halves = split_target(network, x, t, double, torch.full_like(t, 0.5))
    torch.testing.assert_close(halves, bootstrap_target(network, x, t, double, DyadicSteps(128)))


def test_drawn_rows_are_of_their_kind():
    draw = ProgressiveSelfDistillation(distilled_fraction=0.25).draw(SHAPE, 0.0, torch.Generator().manual_seed(0))
    assert draw.distilled.sum() == 16
    assert not draw.d[~draw.distilled].any()
    assert (draw.d[draw.distilled] > 0).all()
    assert ((draw.t + draw.d) <= 1).all()
    assert ((draw.split >= 0) & (draw.split < 1)).all()


def test_every_step_is_told_its_size():
    network = Recorder()
    ProgressiveSelfDistillation().sampler(4)(bind(network), torch.randn(2, 3))
    assert [(t[0].item(), d[0].item()) for _, t, d in network.calls] == [(i / 4, 0.25) for i in range(4)]


@pytest.mark.parametrize(
    ("options", "quoted"),
    [({"distilled_fraction": 1.5}, "1.5"), ({"teacher": "frozen"}, "'frozen'"), ({"condition_dropout": 1.0}, "1.0")],
)
def test_wrong_options_are_quoted(options, quoted):
    with pytest.raises(ValueError, match=quoted):
        ProgressiveSelfDistillation(**options)


def test_a_batch_with_nothing_to_distil_is_refused():
    with pytest.raises(ValueError, match=r"1 rows with distilled_fraction 0\.25"):
        ProgressiveSelfDistillation().draw(torch.Size((1, 2)), 0.0, torch.Generator())
