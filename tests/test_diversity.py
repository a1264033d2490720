"""Paths whose spread is known."""

import h5py
import numpy as np
import pytest

from shortcut_policy.diversity import measure_diversity


@pytest.fixture
def data_set(tmp_path):
    """Return a function that writes demos of (way, constant position, yaw) and says where."""

    def write(*demos):
        path = tmp_path / "demos.hdf5"
        with h5py.File(path, "w") as file:
            for i, (way, position, yaw) in enumerate(demos):
                demo = file.create_group(f"data/demo_{i}")
                demo.attrs["way"] = way
                steps = 3 + 40 * i  # paths are compared by shares of their time
                demo["obs/robot0_eef_pos"] = np.tile(np.float32(position), (steps, 1))
                demo["obs/robot0_eef_quat"] = np.tile(np.float32((0, 0, np.sin(yaw / 2), np.cos(yaw / 2))), (steps, 1))
        return path

    return write


def test_ways_that_explain_everything(data_set):
    found = measure_diversity(data_set(("b", (0, 0, 0), 0), ("b", (0, 0, 0), 0), ("a", (0, 0, 0.2), 0)))
    assert found.ways == {"a": 1, "b": 2}
    assert list(found.ways) == ["a", "b"]
    assert found.explained == pytest.approx(1)
    assert found.within == pytest.approx(0, abs=1e-7)
    assert found.between == pytest.approx(0.2 * np.sqrt(2) / 3)  # standard deviation of 0, 0, 0.2


def test_ways_that_explain_nothing_and_half(data_set):
    points = [(0.1, 0, 0), (-0.1, 0, 0), (0.1, 0, 0), (-0.1, 0, 0)]
    nothing = measure_diversity(data_set(*zip("aabb", points, [0] * 4, strict=True)))
    assert (nothing.between, nothing.within, nothing.explained) == pytest.approx((0, 0.1, 0), abs=1e-7)
    points = [(0.1, 0.1, 0), (-0.1, 0.1, 0), (0.1, -0.1, 0), (-0.1, -0.1, 0)]
    half = measure_diversity(data_set(*zip("aabb", points, [0] * 4, strict=True)))
    assert (half.between, half.within, half.explained) == pytest.approx((0.1, 0.1, 0.5))


def test_turns_count_by_a_lever_of_a_decimetre(data_set):
    found = measure_diversity(data_set(("a", (0, 0, 0), 0), ("b", (0, 0, 0), np.pi)))
    assert found.between == pytest.approx(np.sqrt(2 / 3) * 0.1)  # two of the three points change sides


def test_no_difference_at_all(data_set):
    found = measure_diversity(data_set(("a", (0, 0, 0), 0), ("b", (0, 0, 0), 0)))
    assert (found.between, found.within, found.explained) == (0, 0, 0)
