"""The shortcut objective against known answers, an independent float64 computation and the official code's numbers."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from networks import Recorder, SinglePoint, bind

from shortcut_policy.core.interpolant import Interpolant
from shortcut_policy.core.objectives.base import Batch, Networks
from shortcut_policy.core.objectives.shortcut import Shortcut, ShortcutDraw, bootstrap_target
from shortcut_policy.core.preconditioning import Preconditioning
from shortcut_policy.core.steps import DyadicSteps

SHAPES = [(16, 2), (4, 8, 8)]
B = 32
GOLDEN_LOSS = 2.2469077


def draw_for(objective, shape, seed=0):
    return objective.draw(torch.Size((B, *shape)), 0.0, torch.Generator().manual_seed(seed))


def as_float64(draw):
    return ShortcutDraw(draw.noise.double(), draw.t.double(), draw.d.double(), draw.drop, draw.bootstrap)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("flow_step", ["zero", "smallest"])
def test_the_exact_shortcut_of_a_single_point_has_no_loss(shape, flow_step):
    point = torch.randn(shape, dtype=torch.float64)
    objective = Shortcut(flow_step=flow_step, flow_times="grid")
    exact = bind(SinglePoint(point))
    batch = Batch(point.expand(B, *shape))
    loss = objective.loss(Networks(exact, exact), batch, as_float64(draw_for(objective, shape)))
    assert loss.per_row.max() < 1e-20


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("num_steps", [1, 2, 3, 8, 100, 128, 130])
def test_the_exact_shortcut_reaches_the_point_in_any_number_of_steps(shape, num_steps):
    point = torch.randn(shape, dtype=torch.float64)
    sample = Shortcut().sampler(num_steps)(bind(SinglePoint(point)), torch.randn(B, *shape, dtype=torch.float64))
    torch.testing.assert_close(sample, point.expand(B, *shape), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_target_is_the_mean_velocity_of_two_explicit_half_steps(shape):
    """One step of size 2d with the target lands where two steps of size d land: numpy, by hand, in float64."""
    network = Recorder(dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(5, *shape, generator=generator, dtype=torch.float64)
    t = torch.tensor([0.0, 0.5, 0.0, 0.25, 0.5], dtype=torch.float64)
    double = torch.tensor([1.0, 0.5, 0.5, 0.25, 0.25], dtype=torch.float64)
    target = bootstrap_target(bind(network), x, t, double, DyadicSteps(8))

    a, b, c, _ = network.weight.detach().numpy()

    def s(x, t, d):
        told = 0.0 if d <= 1 / 8 else d
        return np.tanh(a * x + b * t + c * told)

    for row in range(5):
        point, d = x[row].numpy(), double[row].item() / 2
        middle = point + d * s(point, t[row].item(), d)
        end = middle + d * s(middle, t[row].item() + d, d)
        np.testing.assert_allclose(point + 2 * d * target[row].numpy(), end, rtol=0, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_loss_is_both_parts_of_the_equation(shape):
    """Every row of the loss, computed row by row in float64 from the equations."""
    objective = Shortcut(base_steps=8, bootstrap_fraction=0.5)
    student, target = Recorder(0, torch.float64), Recorder(1, torch.float64)
    draw = as_float64(draw_for(objective, shape))
    data = torch.randn(B, *shape, dtype=torch.float64)
    loss = objective.loss(Networks(bind(student), bind(target)), Batch(data), draw)

    def s(network, x, t, d):
        a, b, c, _ = network.weight.detach()
        return torch.tanh(a * x + b * t + c * d)

    assert draw.bootstrap.sum() == B // 2
    for row in range(B):
        t, d, noise = draw.t[row], draw.d[row], draw.noise[row]
        x = (1 - t) * noise + t * data[row]
        if draw.bootstrap[row]:
            half = d / 2
            told = 0.0 if half == 1 / 8 else half
            first = s(target, x, t, told)
            wanted = (first + s(target, x + half * first, t + half, told)) / 2
        else:
            assert d == 0
            wanted = data[row] - noise
        expected = (s(student, x, t, d) - wanted).square().mean()
        torch.testing.assert_close(loss.per_row[row], expected)
    flow, bootstrap = loss.metrics["flow_loss"], loss.metrics["bootstrap_loss"]
    torch.testing.assert_close(flow.total / flow.count, loss.per_row[~draw.bootstrap].mean())
    torch.testing.assert_close(bootstrap.total / bootstrap.count, loss.per_row[draw.bootstrap].mean())


@pytest.mark.parametrize("teacher", ["ema", "online"])
def test_gradient_reaches_the_student_through_the_prediction_alone(teacher):
    """The gradient is that of || s - constant ||^2: no gradient flows through the bootstrap target."""
    objective = Shortcut(base_steps=8, bootstrap_fraction=1.0, bootstrap_teacher=teacher)
    student, target = Recorder(0, torch.float64), Recorder(1, torch.float64)
    draw = as_float64(draw_for(objective, (16, 2)))
    data = torch.randn(B, 16, 2, dtype=torch.float64)
    objective.loss(Networks(bind(student), bind(target)), Batch(data), draw).per_row.mean().backward()
    assert target.weight.grad is None

    source = target if teacher == "ema" else student
    frozen = Recorder(dtype=torch.float64)
    frozen.weight.data.copy_(source.weight.data)
    x = Interpolant().point(draw.noise, data, draw.t)
    wanted = bootstrap_target(bind(frozen), x, draw.t, draw.d, objective.steps).detach()
    alone = Recorder(0, torch.float64)
    (alone(x, draw.t, draw.d, None) - wanted).square().mean().backward()
    torch.testing.assert_close(student.weight.grad, alone.weight.grad)


def test_the_teacher_is_the_one_that_is_named():
    student, target = Recorder(0), Recorder(1)
    for teacher, calls in (("ema", (1, 2)), ("online", (3, 0))):
        student.calls.clear()
        target.calls.clear()
        objective = Shortcut(bootstrap_teacher=teacher)
        objective.loss(
            Networks(bind(student), bind(target)), Batch(torch.randn(B, 16, 2)), draw_for(objective, (16, 2))
        )
        assert (len(student.calls), len(target.calls)) == calls
    assert Shortcut().needs == {"target_ema"}
    assert Shortcut(bootstrap_teacher="online").needs == frozenset()


def test_one_student_forward_for_all_rows_and_half_steps_on_bootstrap_rows_only():
    student, target = Recorder(0), Recorder(1)
    objective = Shortcut(base_steps=16)
    draw = draw_for(objective, (16, 2))
    condition = torch.rand(B)
    nets = Networks(bind(student, condition), bind(target, condition))
    objective.loss(nets, Batch(torch.randn(B, 16, 2), condition), draw)
    assert [len(x) for x, _, _ in student.calls] == [B]
    assert [len(x) for x, _, _ in target.calls] == [B // 4, B // 4]
    (_, t1, d1), (_, t2, d2) = target.calls
    half = draw.d[draw.bootstrap] / 2
    told = torch.where(half > 1 / 16, half, 0.0)
    assert torch.equal(d1, told)
    assert torch.equal(d2, told)
    assert torch.equal(t2 - t1, half)
    assert student.encoded == target.encoded == 1


def test_drawn_rows_are_of_their_kind():
    objective = Shortcut(base_steps=8, bootstrap_fraction=0.25)
    draw = draw_for(objective, (16, 2))
    flow, double = draw.d[~draw.bootstrap], draw.d[draw.bootstrap]
    assert not flow.any()
    assert set(double.tolist()) == {1.0, 0.5, 0.25}, "the largest to twice the smallest step"
    t = draw.t[draw.bootstrap]
    assert torch.equal(t % double, torch.zeros_like(t)), "t lies on the grid of the larger step"
    assert (t + double <= 1).all()
    paper_code = Shortcut(base_steps=8, flow_step="smallest", flow_times="grid")
    draw = draw_for(paper_code, (16, 2))
    assert set(draw.d[~draw.bootstrap].tolist()) == {1 / 8}
    assert torch.equal(draw.t * 8, (draw.t * 8).round())


def test_a_draw_depends_on_its_generator_alone():
    one, two, other = (draw_for(Shortcut(), (16, 2), seed) for seed in (3, 3, 4))
    assert torch.equal(one.noise, two.noise)
    assert torch.equal(one.t, two.t)
    assert not torch.equal(one.noise, other.noise)


def test_slices_of_the_global_batch_add_up_to_its_loss():
    objective = Shortcut()
    student, target = Recorder(0, torch.float64), Recorder(1, torch.float64)
    draw = as_float64(draw_for(objective, (16, 2)))
    data = torch.randn(B, 16, 2, dtype=torch.float64)
    whole = objective.loss(Networks(bind(student), bind(target)), Batch(data), draw).per_row
    parts = [
        objective.loss(Networks(bind(student), bind(target)), Batch(data[rows]), draw.rows(rows)).per_row
        for rows in (slice(0, 8), slice(8, 16), slice(16, 32))
    ]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_masked_actions_are_left_out():
    objective = Shortcut()
    draw = draw_for(objective, (16, 2))
    data, mask = torch.randn(B, 16, 2), torch.rand(B, 16) < 0.6
    mask[0] = False
    nets = Networks(bind(Recorder(0)), bind(Recorder(1)))
    spoiled = torch.where(mask[..., None], data, 1e3)
    flow = ~draw.bootstrap
    clean = objective.loss(nets, Batch(data, loss_mask=mask), draw).per_row
    torch.testing.assert_close(objective.loss(nets, Batch(spoiled, loss_mask=mask), draw).per_row[flow], clean[flow])
    assert clean[0] == 0


def test_rows_of_both_kinds_are_weighted_by_their_own_error():
    network, data = Recorder(0, torch.float64), torch.randn(B, 16, 2, dtype=torch.float64)
    draw = as_float64(draw_for(Shortcut(), (16, 2)))
    plain, weighted = (
        Shortcut(weight_power=power, weight_offset=0.5).loss(Networks(bind(network), bind(network)), Batch(data), draw)
        for power in (0.0, 2.0)
    )
    torch.testing.assert_close(weighted.per_row, plain.per_row / (plain.per_row + 0.5) ** 2)
    assert weighted.metrics == plain.metrics, "the log holds the unweighted errors"
    assert weighted.per_row.requires_grad, "weights have no gradient, errors do"


def test_errors_of_the_prediction_are_those_of_the_raw_network():
    """(F - F*)^2 from the network's own output, times V over V's mean: the rows' weights 1 / V and V cancel."""
    network, data = Recorder(0, torch.float64), torch.randn(B, 16, 2, dtype=torch.float64)
    draw = as_float64(draw_for(Shortcut(bootstrap_fraction=0.0), (16, 2)))
    objective = Shortcut(bootstrap_fraction=0.0, sigma_data=0.5, weighting="prediction")
    per_row = objective.loss(Networks(bind(network), bind(network)), Batch(data), draw).per_row
    t = draw.t[:, None, None]
    variance = (1 - t) ** 2 + t**2 * 0.25
    x_t, v = (1 - t) * draw.noise + t * data, data - draw.noise
    raw = network(x_t / variance.sqrt(), draw.t, draw.d, None)
    raw_target = variance.sqrt() * (v - (t * 0.25 - (1 - t)) / variance * x_t)
    torch.testing.assert_close(per_row, (raw - raw_target).square().mean(dim=(1, 2)) * 3 / 1.25)
    times = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    assert torch.trapezoid(Preconditioning(0.5).weight(times), times) == pytest.approx(1.0, abs=1e-6)


def test_bounds_act_on_the_middle_point_and_on_the_target():
    x, t, double = torch.full((1, 2), 3.9), torch.zeros(1), torch.ones(1)
    points = []

    def predict(x, t, d):
        points.append(x)
        return torch.full_like(x, 10.0)

    target = bootstrap_target(predict, x, t, double, DyadicSteps(8), clip=4.0)
    assert points[1].eq(4.0).all()
    assert target.eq(4.0).all()


def test_guided_targets_on_the_finest_level_or_on_all():
    student, target = Recorder(0), Recorder(1)
    generator = torch.Generator().manual_seed(0)
    condition = 1 + torch.rand(B, generator=generator)
    batch = Batch(torch.randn(B, 16, 2, generator=generator), condition, torch.zeros(B))

    def losses(**options):
        objective = Shortcut(base_steps=8, bootstrap_fraction=1.0, **options)
        nets = Networks(bind(student, condition, batch.null_condition), bind(target, condition, batch.null_condition))
        draw = draw_for(objective, (16, 2))
        return objective.loss(nets, batch, draw).per_row, draw.d

    plain, d = losses()
    finest, _ = losses(bootstrap_guidance=2.0)
    everywhere, _ = losses(bootstrap_guidance=2.0, guided_levels="all")
    is_finest = d == 0.25
    torch.testing.assert_close(finest[~is_finest], plain[~is_finest])
    torch.testing.assert_close(finest[is_finest], everywhere[is_finest])
    assert not torch.equal(everywhere[is_finest], plain[is_finest])
    assert not torch.equal(everywhere[~is_finest], plain[~is_finest])


def test_conditions_are_dropped_in_flow_rows_only():
    draw = draw_for(Shortcut(condition_dropout=0.9), (16, 2))
    assert not draw.drop[draw.bootstrap].any()
    assert 0.5 < draw.drop[~draw.bootstrap].float().mean() <= 1.0


def test_seeded_loss_is_what_it_was():
    """Golden value: run this test with a print to update it when the meaning of a draw is changed on purpose."""
    objective = Shortcut(base_steps=16)
    data = torch.randn(B, 16, 2, generator=torch.Generator().manual_seed(7))
    nets = Networks(bind(Recorder(0)), bind(Recorder(1)))
    loss = objective.loss(nets, Batch(data), draw_for(objective, (16, 2), seed=8)).per_row.mean()
    torch.testing.assert_close(loss.item(), GOLDEN_LOSS, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("options", "quoted"),
    [
        ({"base_steps": 1}, "1"),
        ({"base_steps": 12}, "12"),
        ({"bootstrap_fraction": 1.5}, "1.5"),
        ({"bootstrap_teacher": "EMA"}, "'EMA'"),
        ({"levels": "random"}, "'random'"),
        ({"clip": -1.0}, "-1.0"),
        ({"condition_dropout": 1.0}, "1.0"),
        ({"flow_step": "one"}, "'one'"),
        ({"bootstrap_start": 1.0}, "1.0"),
        ({"weighting": "loss"}, "'loss'"),
        ({"weighting": "prediction"}, "give a sigma_data"),
        ({"weight_power": -1.0}, "-1.0"),
    ],
)
def test_wrong_options_are_quoted(options, quoted):
    with pytest.raises(ValueError, match=quoted):
        Shortcut(**options)


def test_bootstrap_rows_wait_for_the_flow():
    objective, shape = Shortcut(bootstrap_start=0.5), torch.Size((B, 4, 2))
    early, late = (objective.draw(shape, progress, torch.Generator().manual_seed(0)) for progress in (0.499, 0.5))
    assert not early.bootstrap.any()
    assert (early.d == 0).all()
    assert late.bootstrap.sum() == B / 4


def test_a_batch_without_a_bootstrap_row_is_refused():
    for start in (0.0, 0.5):
        with pytest.raises(ValueError, match=r"2 rows with bootstrap_fraction 0\.1"):
            Shortcut(bootstrap_fraction=0.1, bootstrap_start=start).draw(torch.Size((2, 4, 2)), 0.0, torch.Generator())


def test_targets_of_the_official_code(real_data):
    """Replay the network calls that the paper's JAX code recorded: points, told steps, targets and noise agree."""
    numbers = np.load(real_data("parity/targets_shortcut_nocfg.npz"), allow_pickle=False)
    flags = json.loads(str(numbers["flags_json"]))
    rows = int(numbers["num_bootstrap"])
    steps = DyadicSteps(flags["model"]["denoise_timesteps"], flow_step="smallest")
    tensor = {key: torch.from_numpy(numbers[key]) for key in numbers.files if numbers[key].dtype == np.float32}
    images, t = tensor["images"], tensor["t"]
    double = torch.exp2(-tensor["dt_base"][:rows])
    path = Interpolant(sigma_min=1e-5)
    x_t = path.point(tensor["x0_bootstrap"], images[:rows], t[:rows])
    torch.testing.assert_close(x_t, tensor["x_t"][:rows], rtol=0, atol=1e-6)

    calls = iter(range(2))

    def replay(x, t, d):
        call = next(calls)
        torch.testing.assert_close(t, tensor[f"call{call}/t"])
        torch.testing.assert_close(-torch.log2(d), tensor[f"call{call}/dt"])
        if f"call{call}/x" in tensor:
            torch.testing.assert_close(x, tensor[f"call{call}/x"], rtol=0, atol=1e-6)
        return tensor[f"call{call}/out"]

    target = bootstrap_target(replay, x_t, t[:rows], double, steps, clip=4.0)
    torch.testing.assert_close(target, tensor["v_t"][:rows], rtol=0, atol=1e-6)
    velocity = path.velocity(tensor["x0_flow"], images)
    torch.testing.assert_close(velocity[: 64 - rows], tensor["v_t"][rows:], rtol=0, atol=1e-5)


def test_bootstrap_rows_share_the_data_of_the_row_before_them():
    """As in the paper's code; what their own rows hold does not count."""
    objective = Shortcut(base_steps=8, bootstrap_fraction=0.25, shared_data=True)
    draw = as_float64(draw_for(objective, (3,)))
    data = torch.randn(B, 3, dtype=torch.float64)
    rows = draw.bootstrap.nonzero().squeeze(1)
    assert len(rows) == B // 4
    assert not draw.bootstrap[rows - 1].any()
    spoilt, repeated = data.clone(), data.clone()
    spoilt[rows] = torch.nan
    repeated[rows] = data[rows - 1]

    def loss(objective, data):
        network = Recorder(dtype=torch.float64)
        nets = Networks(bind(network, data[:, 0]), bind(network, data[:, 0]))
        return objective.loss(nets, Batch(data), draw).per_row

    own = replace(objective, shared_data=False)
    torch.testing.assert_close(loss(objective, spoilt), loss(own, repeated), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"bootstrap_fraction 0\.75 must be at most 0\.5"):
        Shortcut(bootstrap_fraction=0.75, shared_data=True)
    cut = draw.rows(slice(int(rows[0]), B))  # a slice that begins with a bootstrap row
    network = Recorder(dtype=torch.float64)
    data = data[rows[0] :]
    nets = Networks(bind(network, data[:, 0]), bind(network, data[:, 0]))
    assert objective.loss(nets, Batch(data), cut).per_row.isfinite().all()


def test_a_slice_without_bootstrap_rows_asks_the_teacher_as_the_others_do():
    """Where the teacher's weights are divided among processes, one that did not ask would leave the others waiting."""
    objective = Shortcut(base_steps=8, bootstrap_fraction=0.25, flow_step="smallest")
    draw = draw_for(objective, (3,))
    data = torch.randn(B, 3)
    first = int(draw.bootstrap.nonzero()[0])
    alone, whole = slice(0, first), slice(0, B)
    losses, calls = {}, {}
    for name, rows in (("alone", alone), ("whole", whole)):
        student, teacher = Recorder(), Recorder(seed=1)
        nets = Networks(bind(student), bind(teacher))
        losses[name] = objective.loss(nets, Batch(data[rows]), draw.rows(rows)).per_row
        calls[name] = len(teacher.calls)
    assert calls == {"alone": 2, "whole": 2}
    torch.testing.assert_close(losses["alone"], losses["whole"][alone])
    late = replace(objective, bootstrap_start=0.5)
    nobody = Networks(bind(Recorder()), None)
    assert late.loss(nobody, Batch(data), draw_for(late, (3,))).per_row.isfinite().all()
