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
    objective = ProgressiveSelfDistillation(distilled_fraction=0.5, finest=1 / 128)
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
            told = [0.0 if part < 1 / 128 else part for part in (h * d, (1 - h) * d)]
            first = s(target, x, t, told[0])
            second = s(target, x + h * d * first, t + h * d, told[1])
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


def test_sizes_are_log_uniform_and_a_good_share_of_the_rows_hangs_on_the_flow():
    objective = ProgressiveSelfDistillation(distilled_fraction=1.0, finest=1 / 128)
    draw = objective.draw(torch.Size((4096, 1)), 0.0, torch.Generator().manual_seed(0))
    levels = -draw.d.log2()
    assert 0 <= levels.min() < 0.01
    assert 6.99 < levels.max() <= 7
    counts = torch.histc(levels, 7, 0, 7)
    assert (counts - 4096 / 7).abs().max() < 5 * (4096 / 7) ** 0.5
    parts = torch.stack([draw.split * draw.d, (1 - draw.split) * draw.d])
    assert 0.2 < (parts < 1 / 128).any(dim=0).float().mean() < 0.5
    where = draw.t / (1 - draw.d).clamp(min=1e-6)
    assert abs(where.mean() - 0.5) < 0.03, "t is uniform in [0, 1 - d]"


def test_parts_shorter_than_the_finest_are_the_flows():
    network = Recorder(3, torch.float64)
    x, t = torch.randn(2, 4, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
    d, split = torch.full_like(t, 1 / 64), torch.tensor([0.25, 0.75], dtype=torch.float64)
    split_target(bind(network), x, t, d, split, finest=1 / 128)
    told = [call[2].tolist() for call in network.calls]
    assert told == [[0.0, 0.75 / 64], [0.75 / 64, 0.0]]
    network.calls.clear()
    ProgressiveSelfDistillation(finest=1 / 4).sampler(8)(bind(network), x)
    assert {call[2][0].item() for call in network.calls} == {0.0}


def test_every_step_is_told_its_size():
    network = Recorder()
    ProgressiveSelfDistillation().sampler(4)(bind(network), torch.randn(2, 3))
    assert [(t[0].item(), d[0].item()) for _, t, d in network.calls] == [(i / 4, 0.25) for i in range(4)]


@pytest.mark.parametrize(
    ("options", "quoted"),
    [
        ({"distilled_fraction": 1.5}, "1.5"),
        ({"teacher": "frozen"}, "'frozen'"),
        ({"finest": 0.0}, "0.0"),
        ({"condition_dropout": 1.0}, "1.0"),
    ],
)
def test_wrong_options_are_quoted(options, quoted):
    with pytest.raises(ValueError, match=quoted):
        ProgressiveSelfDistillation(**options)


def test_a_batch_with_nothing_to_distil_is_refused():
    with pytest.raises(ValueError, match=r"1 rows with distilled_fraction 0\.25"):
        ProgressiveSelfDistillation().draw(torch.Size((1, 2)), 0.0, torch.Generator())
