import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from shortcut_policy.core.steps import DyadicSteps, draw_grid_times, draw_levels, spread_rows


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(("flow_step", "flow_d"), [("zero", 0.0), ("smallest", 1 / 8)])
def test_the_network_is_told_the_size_or_the_flow(flow_step, flow_d):
    steps = DyadicSteps(8, flow_step)
    told = steps.told(torch.tensor([1.0, 0.5, 0.25, 1 / 8, 1 / 16]))
    assert told.tolist() == [1.0, 0.5, 0.25, flow_d, flow_d]


@pytest.mark.parametrize("base_steps", [0, 3, 12, -4])
def test_base_steps_must_be_a_power_of_two(base_steps):
    with pytest.raises(ValueError, match=str(base_steps)):
        DyadicSteps(base_steps)


@given(st.integers(1, 200), st.sampled_from([2, 16, 128]))
def test_a_schedule_covers_the_path(num_steps, base_steps):
    schedule = DyadicSteps(base_steps).schedule(num_steps)
    assert len(schedule) == num_steps
    times = [t for t, _ in schedule] + [1.0]
    assert times[0] == 0.0
    np.testing.assert_allclose(np.diff(times), [d for _, d in schedule])


@given(st.integers(1, 128))
def test_every_step_is_one_that_is_trained(num_steps):
    for t, size in DyadicSteps(128).schedule(num_steps):
        assert np.log2(size).is_integer()
        assert (t / size).is_integer(), "t lies on the grid of the step"


def test_powers_of_two_are_equal_steps_and_three_is_documented():
    assert DyadicSteps(128).schedule(4) == [(0.0, 0.25), (0.25, 0.25), (0.5, 0.25), (0.75, 0.25)]
    assert DyadicSteps(128).schedule(3) == [(0.0, 0.5), (0.5, 0.25), (0.75, 0.25)]


@given(st.integers(0, 60), st.integers(1, 7), st.integers(0, 5))
def test_balanced_levels_differ_by_one_at_most(rows, num_levels, seed):
    counts = torch.bincount(draw_levels(rows, num_levels, "balanced", generator(seed)), minlength=num_levels)
    assert counts.sum() == rows
    assert counts.max() - counts.min() <= 1


def test_a_batch_too_small_for_all_levels_still_trains_all_in_time():
    # the official layout trains d = 1 alone when there are fewer rows than levels
    drawn = torch.cat([draw_levels(2, 7, "balanced", generator(seed)) for seed in range(60)])
    assert set(drawn.tolist()) == set(range(7))
    assert draw_levels(2, 7, "official", generator()).tolist() == [0, 0]


def test_official_layout():
    assert draw_levels(8, 3, "official", generator()).tolist() == [2, 2, 1, 1, 0, 0, 0, 0]


def test_uniform_levels_are_uniform():
    counts = torch.bincount(draw_levels(70_000, 7, "uniform", generator()), minlength=7)
    assert (counts - 10_000).abs().max() < 500  # five standard deviations


def test_times_lie_on_the_grid_and_fill_it():
    levels = torch.arange(4).repeat_interleave(2000)
    t = draw_grid_times(levels, generator())
    for level in range(4):
        values, counts = t[levels == level].unique(return_counts=True)
        assert values.tolist() == [i / 2**level for i in range(2**level)]
        expected = 2000 / 2**level
        assert (counts - expected).abs().max() < 5 * expected**0.5


@given(st.integers(1, 300), st.floats(0, 1))
def test_rows_are_spread_evenly(rows, fraction):
    chosen = spread_rows(rows, fraction)
    assert chosen.sum() == round(fraction * rows)
    for slices in (2, 4):
        if rows % slices == 0:
            shares = [int(part.sum()) for part in chosen.chunk(slices)]
            assert max(shares) - min(shares) <= 1
