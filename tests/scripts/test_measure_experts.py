"""What a data set tells of the expert that made it."""

import json

import h5py
import numpy as np
import pytest

from shortcut_policy.expert_results import expert_table, measure_expert
from shortcut_policy.statistics import wilson_interval


@pytest.fixture
def data_set(tmp_path):
    """Three demos of four attempts, a way apart by 0.2 m in height."""
    path = tmp_path / "lift.hdf5"
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs.update({"expert": json.dumps({"task": "lift", "speed": [1, 2]}), "attempts": 4, "first_seed": 7})
        for i, (way, height) in enumerate((("turn_left", 0.0), ("turn_left", 0.0), ("right", 0.2))):
            demo, steps = data.create_group(f"demo_{i}"), 10 * (i + 1)
            demo.attrs.update({"way": way, "num_samples": steps})
            demo["obs/robot0_eef_pos"] = np.tile(np.float32((0, 0, height)), (steps, 1))
            demo["obs/robot0_eef_quat"] = np.tile(np.float32((0, 0, 0, 1)), (steps, 1))
    return path


def test_success_steps_and_ways_are_those_of_the_file(data_set):
    row = measure_expert(data_set)
    assert (row.task, row.demos, row.attempts, row.first_seed, row.success, row.steps) == ("lift", 3, 4, 7, 0.75, 20)
    interval = wilson_interval(3, 4)
    assert (row.success_low, row.success_high) == pytest.approx((interval.low, interval.high), abs=1e-4)
    assert row.ways == {"right": 1, "turn_left": 2}
    assert row.explained == pytest.approx(1)
    assert row.between_mm == pytest.approx(200 * np.sqrt(2) / 3, abs=0.1)
    assert expert_table([row]).splitlines()[-1] == (
        "| lift | **0.75** [0.30, 0.95] of 4 | 3 | 20 | right 1, turn left 2 | 94, 0 mm | 100% |"
    )


def test_the_command_writes_what_it_prints(data_set, tmp_path, run_command):
    target = tmp_path / "results" / "experts.json"
    words = (f"data={data_set}", f"result={target}")
    code, out, errors = run_command("measure_experts", *words)
    assert code == 0, errors
    assert out.strip() == expert_table([measure_expert(data_set)])
    document = json.loads(target.read_text())
    assert document["rows"][0]["ways"] == {"right": 1, "turn_left": 2}
    assert f"measure_experts.py data={data_set}" in document["command"]
    code, _, errors = run_command("measure_experts", *words)
    assert (code, errors.count("\n")) == (2, 1)
    assert "overwrite=true" in errors


def test_other_files_are_refused(tmp_path, data_set):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.hdf5 is not there"):
        measure_expert(tmp_path / "nowhere.hdf5")
    with h5py.File(data_set, "a") as file:
        del file["data"].attrs["attempts"]
    with pytest.raises(ValueError, match=r"does not tell its attempts: scripts/collect_demos\.py did not make it"):
        measure_expert(data_set)
