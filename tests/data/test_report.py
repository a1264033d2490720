import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shortcut_policy.data.report import format_report, inspect_zarr

REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("zipped_as", [None, "task/replay.zarr"])
def test_sound_store(write_replay, replay_arrays, zarr_format, zipped_as):
    path = write_replay(zarr_format=zarr_format, zipped_as=zipped_as)
    report = inspect_zarr(path)
    assert report.problems == report.notes == ()
    assert report.path == str(path / (zipped_as or ""))
    assert report.format == f"zarr format {zarr_format}"
    assert (report.num_episodes, report.num_steps) == (2, 10)
    assert (report.shortest, report.median_length, report.longest) == (4, 5, 6)
    assert [array.name for array in report.arrays] == ["data/action", "data/keypoint", "data/state"]
    for array in report.arrays:
        values = replay_arrays[array.name]
        assert array.shape == values.shape
        assert array.chunks == (4, *values.shape[1:])
        assert array.dtype == "float32"
        assert array.bytes == 4 * values.size
        found = [array.minimum, array.maximum, array.mean, array.std]
        np.testing.assert_allclose(found, [values.min(), values.max(), values.mean(), values.std()], rtol=1e-6)


def test_image_statistics_by_chunk(write_replay, replay_arrays):
    images = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), np.uint8)
    report = inspect_zarr(write_replay({**replay_arrays, "data/img": images}))
    image = next(array for array in report.arrays if array.name == "data/img")
    np.testing.assert_allclose(
        [image.minimum, image.maximum, image.mean, image.std],
        [images.min(), images.max(), images.mean(), images.std()],
    )
    assert image.bytes == images.nbytes


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.full((10, 8, 8, 3), 0.5, np.float32), "holds 0.5, but images are whole numbers in 0 ... 255: multiply"),
        (np.ones((10, 8, 8, 3), np.float32), "holds nothing but 0 and 1 as float32, but images are whole numbers"),
        (np.ones((10, 3, 8, 8), np.uint8), "has shape (10, 3, 8, 8), but images are (N, H, W, C): move the channels"),
        (np.ones((10, 8, 8), np.uint8), "holds uint8 (10, 8, 8): give gray images an axis of channels"),
        (np.ones(10), "has shape (10,): low-dim arrays are"),
        (np.full((10, 8, 8, 3), 255.0, np.float32), None),
        (np.ones((10, 8, 8, 3), np.uint8), None),
    ],
)
def test_what_could_be_no_observation_is_noted(write_replay, replay_arrays, values, reason):
    report = inspect_zarr(write_replay({**replay_arrays, "data/other": values}))
    assert report.problems == ()
    noted = [note for note in report.notes if note.startswith("as an observation data/other would be refused: it ")]
    assert len(noted) == (reason is not None)
    assert all(reason in note for note in noted)


def test_statistics_do_not_cancel(write_replay):
    actions = (1e6 + np.random.default_rng(0).normal(size=(40, 1))).astype(np.float32)
    report = inspect_zarr(write_replay({"data/action": actions, "meta/episode_ends": np.array([40])}))
    np.testing.assert_allclose(report.arrays[0].std, actions.astype(np.float64).std(), rtol=1e-9)


def test_lists_every_problem(write_replay, replay_arrays):
    state = replay_arrays["data/state"].copy()
    state[6, 1] = np.nan
    state[9, :2] = np.inf
    keypoint = replay_arrays["data/keypoint"][:9]
    path = write_replay({**replay_arrays, "data/state": state, "data/keypoint": keypoint})
    (path / "data/action/0.0").unlink()
    (path / "data/action/1.0").write_bytes(b"")
    (path / "data/action/2.0").write_bytes(b"x" * 12 + (40).to_bytes(4, "little") + b"x" * 24)
    (path / "data/velocity").mkdir()
    (path / "data/velocity/.zarray").write_text("{")
    report = inspect_zarr(path)
    action, keypoint, state, velocity = (
        [problem for problem in report.problems if name in problem]
        for name in ("data/action", "data/keypoint", "data/state", "data/velocity")
    )
    assert action == [
        "data/action: 1 of 3 chunks missing (0.0)",
        "data/action: 1 of 3 chunks truncated (1.0)",
        "data/action: 1 of 3 chunks unreadable (2.0)",
    ]
    assert keypoint == ["data/keypoint has 9 rows, but the last episode ends at 10"]
    assert state == ["data/state: 3 values are NaN or infinite, the first at step 6 (step 2 of episode 1)"]
    assert len(velocity) == 1
    assert "cannot be opened" in velocity[0]
    assert len(report.problems) == 6
    # Statistics are over what is left: all of the state but its three bad values, and nothing of the action.
    finite = replay_arrays["data/state"].copy()
    finite[6, 1] = finite[9, :2] = np.nan
    assert report.arrays[2].mean == pytest.approx(np.nanmean(finite))
    assert report.arrays[0].mean is report.arrays[0].minimum is None


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        (np.array([4, 4, 10]), "episode 0 ends at 4 and episode 1 at 4"),
        (np.array([0, 10]), "episode 0 ends at 0"),
        (np.array([], int), "at least one episode"),
        (np.array([4.0, 10.0]), "1-D integer"),
    ],
)
def test_unusable_episode_ends(write_replay, replay_arrays, ends, message):
    report = inspect_zarr(write_replay({**replay_arrays, "meta/episode_ends": ends}))
    assert (report.num_episodes, report.num_steps, report.shortest) == (0, 0, None)
    assert len(report.arrays) == 3
    (problem,) = report.problems
    assert message in problem
    assert message in format_report(report)


def test_notes_are_no_problems(write_replay, replay_arrays):
    state = replay_arrays["data/state"].copy()
    state[:, 3] = 7
    longer = np.concatenate([replay_arrays["data/keypoint"], np.full((10, 9, 2), np.nan)])
    report = inspect_zarr(write_replay({**replay_arrays, "data/state": state, "data/keypoint": longer}))
    assert report.problems == ()
    assert report.notes == (
        "data/keypoint has 10 rows beyond the last episode, which are ignored",
        "data/state: column 3 constant (7)",
    )


def test_format_report(write_replay, replay_arrays):
    path = write_replay()
    (path / "data/action/0.0").unlink()
    lines = format_report(inspect_zarr(path)).splitlines()
    assert lines[0] == f"{path} (zarr format 2)"
    assert lines[1] == "2 episodes, 10 steps; 4 to 6 steps each, median 5"
    table = lines[3:8]
    assert len({len(line) for line in table}) == 1
    assert table[0].split() == ["array", "type", "shape", "chunks", "in", "RAM", "min", "max", "mean", "std"]
    assert table[4].split()[:6] == ["data/state", "float32", "10", "x", "5", "4"]
    assert lines[-2:] == ["Problems", "  - data/action: 1 of 3 chunks missing (0.0)"]
    assert format_report(inspect_zarr(write_replay())).endswith("No problems found.")


def check_data(*words) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts/check_data.py"), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def test_command_exit_status(write_replay, tmp_path):
    path = write_replay()
    sound = check_data(f"path={path}")
    assert (sound.returncode, sound.stderr) == (0, "")
    assert "No problems found." in sound.stdout
    (path / "data/action/0.0").unlink()
    damaged = check_data(f"path={path}")
    assert damaged.returncode == 1
    assert "chunks missing" in damaged.stdout
    absent = check_data(f"path={tmp_path / 'nowhere'}")
    assert (absent.returncode, absent.stdout) == (2, "")
    assert absent.stderr.count("\n") == 1
    assert "nowhere does not exist" in absent.stderr


def test_command_line(tmp_path):
    assert "path=DIR_or_ZIP" in check_data("--help").stdout
    wrong = check_data("data")
    assert wrong.returncode == 2
    assert wrong.stderr == "expected path=DIR_or_ZIP or path=FILE.hdf5, not 'data'\n"
