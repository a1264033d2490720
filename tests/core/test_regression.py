"""The two objectives that predict the data: plain regression, and the minimum iterative policy."""

import pytest
import torch
from networks import Recorder, bind

from shortcut_policy.core.objectives.base import Batch, Networks
from shortcut_policy.core.objectives.minimum_iterative import MinimumIterative
from shortcut_policy.core.objectives.regression import Regression

SHAPE = torch.Size((8, 4, 2))


def test_regression_is_the_square_error_of_what_is_predicted_from_nothing():
    network, data = Recorder(dtype=torch.float64), torch.randn(SHAPE, dtype=torch.float64)
    condition = torch.rand(8, dtype=torch.float64)
    objective = Regression()
    draw = objective.draw(SHAPE, 0.0, torch.Generator())
    loss = objective.loss(Networks(bind(network, condition)), Batch(data, condition), draw).per_row
    (x, t, d), *more = network.calls
    assert not more
    assert not x.any()
    assert not t.any()
    assert not d.any()
    torch.testing.assert_close(loss, data.square().mean(dim=(1, 2)))  # the recorder answers 0 to zeros


def test_regression_learns_the_mean_of_two_modes():
    """What makes it the baseline: data at -1 and +1 give 0, where there are none."""
    bias = torch.nn.Parameter(torch.tensor(0.3))

    class Constant(torch.nn.Module):
        def encode(self, condition):
            return condition

        def forward(self, x, t, d, encoded):
            return bias + 0 * x

    objective, data = Regression(), torch.tensor([-1.0, 1.0]).repeat(50)[:, None]
    optimizer = torch.optim.SGD([bias], lr=0.25)
    for _ in range(50):
        draw = objective.draw(data.shape, 0.0, torch.Generator())
        optimizer.zero_grad()
        objective.loss(Networks(bind(Constant())), Batch(data), draw).per_row.mean().backward()
        optimizer.step()
    assert bias.item() == pytest.approx(0.0, abs=1e-4)
    assert objective.sampler(4)(bind(Constant()), torch.randn(3, 1)).flatten().tolist() == [bias.item()] * 3


def test_regression_ignores_noise_and_makes_one_evaluation():
    network = Recorder()
    sampler = Regression().sampler(8)
    samples = sampler(bind(network, torch.rand(3)), torch.randn(3, 4))
    assert (sampler.evaluations, sampler.step_noises, len(network.calls)) == (1, 0, 1)
    assert torch.equal(samples, sampler(bind(network, torch.rand(3)), torch.randn(3, 4)))


def test_minimum_iterative_loss_is_both_parts_of_the_equation():
    c = 0.8
    network, data = Recorder(dtype=torch.float64), torch.randn(SHAPE, dtype=torch.float64)
    objective = MinimumIterative(c)
    draw = objective.draw(SHAPE, 0.0, torch.Generator().manual_seed(0))
    loss = objective.loss(Networks(bind(network)), Batch(data), draw)
    a, b, _, _ = network.weight
    assert draw.refines.sum() == 4
    for row in range(8):
        if draw.refines[row]:
            answer = torch.tanh(a * (c * data[row] + (1 - c) * draw.noise[row]) + b * c)
            expected = (answer - data[row]).square().mean() / (1 - c) ** 2
        else:
            expected = data[row].square().mean() / c**2
        torch.testing.assert_close(loss.per_row[row], expected, rtol=1e-6, atol=1e-6)
    assert len(network.calls) == 1, "one student forward for all rows"


def test_minimum_iterative_refines_its_own_answer_once():
    network, noise = Recorder(dtype=torch.float64), torch.randn(5, 3, dtype=torch.float64)

    class Shifted(torch.nn.Module):
        """p(x, t) = 1 + x at t = 0 and 10 + x later."""

        def encode(self, condition):
            return condition

        def forward(self, x, t, d, encoded):
            network.calls.append((x, t, d))
            return x + torch.where(t > 0, 10.0, 1.0)[:, None]

    objective = MinimumIterative(0.5)
    assert objective.sampler(1)(bind(Shifted()), noise).unique().tolist() == [1.0]
    assert objective.sampler(2)(bind(Shifted()), noise).unique().tolist() == [10.5]
    assert [objective.sampler(n).evaluations for n in (1, 2, 16)] == [1, 2, 2]
    assert network.calls[-1][1].unique().item() == 0.5


@pytest.mark.parametrize("objective", [Regression(), MinimumIterative()])
def test_no_step_is_refused(objective):
    with pytest.raises(ValueError, match="at least 1, got 0"):
        objective.sampler(0)


@pytest.mark.parametrize("c", [0.0, 1.0])
def test_a_time_out_of_range_is_quoted(c):
    with pytest.raises(ValueError, match=f"got {c}"):
        MinimumIterative(c)
