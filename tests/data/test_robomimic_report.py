import re
import runpy
from pathlib import Path

import h5py
import numpy as np
import pytest

from shortcut_policy.data.report import format_report
from shortcut_policy.data.robomimic_report import inspect_robomimic

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def demos(make_demo):
    return {f"demo_{number}": make_demo(length, "v1.5", number) for number, length in enumerate((4, 2, 3))}


def problems_of(path, name):
    return [problem for problem in inspect_robomimic(path).problems if problem.startswith(name)]


def test_sound_file(write_robomimic, demos):
    path = write_robomimic(demos, masks={"train": ["demo_0", "demo_2"]}, compression="gzip")
    report = inspect_robomimic(path)
    assert report.problems == ()
    assert (report.path, report.format) == (str(path), "robomimic HDF5")
    assert (report.num_episodes, report.num_steps) == (3, 9)
    assert (report.shortest, report.median_length, report.longest) == (2, 3, 4)
    assert report.notes[:2] == (
        "environment Lift (robosuite), controllers configured for delta_pose",
        "filter key train: 2 demos",
    )
    names = [array.name for array in report.arrays]
    assert names == sorted(demos["demo_0"])
    for array in report.arrays:
        values = np.concatenate([demo[array.name] for demo in demos.values()])
        assert (array.shape, array.dtype, array.bytes) == (values.shape, str(values.dtype), values.nbytes)
        found = [array.minimum, array.maximum, array.mean, array.std]
        np.testing.assert_allclose(found, [values.min(), values.max(), values.mean(), values.std()], rtol=1e-5)
    assert format_report(report).splitlines()[0] == f"{path} (robomimic HDF5)"


def test_images_are_read_in_blocks(write_robomimic, demos, monkeypatch):
    monkeypatch.setattr("shortcut_policy.data.robomimic_report._BLOCK_BYTES", 200)
    report = inspect_robomimic(write_robomimic(demos))
    image = next(array for array in report.arrays if array.name == "obs/agentview_image")
    values = np.concatenate([demo["obs/agentview_image"] for demo in demos.values()])
    np.testing.assert_allclose([image.mean, image.std], [values.mean(), values.std()])


def test_lists_every_problem(write_robomimic, demos):
    path = write_robomimic(demos, masks={"valid": ["demo_1", "demo_9"]}, env_args="{")
    with h5py.File(path, "a") as file:
        data = file["data"]
        data["demo_1"].attrs["num_samples"] = 7
        data["demo_2/actions"][1, 2:4] = np.nan
        data["demo_0/actions"][3, 0] = np.inf
        del data["demo_1/obs/object"]
        for name, values in {
            "rewards": np.zeros(5),
            "obs/robot0_eef_pos": np.ones((3, 2)),
            "obs/agentview_image": np.ones((3, 3, 6, 5), np.uint8),
        }.items():
            del data[f"demo_2/{name}"]
            data[f"demo_2/{name}"] = values
        data["demo_0/initial_state/qpos"] = np.zeros((1, 9))
    report = inspect_robomimic(path)
    expected = [
        "demo_1 of .* has num_samples 7, but 2 actions",
        "env_args of .* is no JSON",
        r"filter key valid lists demos that do not exist \(demo_9\)",
        "actions: 3 values are NaN or infinite, the first at step 3 of demo_0",
        r"obs/agentview_image: holds uint8 .* move the channels .* in 1 of 3 demos \(demo_2\)",
        r"obs/object: absent in 1 of 3 demos \(demo_1\)",
        r"obs/robot0_eef_pos: float64 \(n, 2\) instead of float64 \(n, 3\) in 1 of 3 demos \(demo_2\)",
        r"rewards: another number of rows than actions in 1 of 3 demos \(demo_2\)",
    ]
    assert len(report.problems) == len(expected)
    for pattern in expected:
        (_,) = [problem for problem in report.problems if re.search(pattern, problem)]
    assert (report.num_episodes, report.num_steps) == (2, 7)
    assert "attribute total says 9, but the demos have 7 steps: it is not used" in report.notes
    assert "not looked at, as they have no row per step: initial_state/qpos" in report.notes


def test_unreadable_values(write_robomimic, demos):
    path = write_robomimic(demos, compression="gzip", fletcher32=True)
    with h5py.File(path) as file:
        where = file["data/demo_1/obs/object"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[where : where + 20] = bytes(20)
    path.write_bytes(content)
    assert problems_of(path, "obs/object") == ["obs/object: unreadable in 1 of 3 demos (demo_1)"]


def test_no_usable_demo(write_robomimic, make_demo):
    path = write_robomimic({"demo_0": {key: values[:0] for key, values in make_demo(3).items()}})
    report = inspect_robomimic(path)
    assert (report.num_episodes, report.num_steps, report.shortest) == (0, 0, None)
    assert "has no steps" in format_report(report)


@pytest.mark.parametrize(
    ("file", "episodes", "steps", "problems"),
    [
        ("isaac/reach_indy7.hdf5", 100, 5523, ()),
        ("adroit/door_human.hdf5", 25, 6729, ()),
        ("robosuite_human/lift_panda_v1.4.0.hdf5", 3, 1384, ("there are no observations below obs/",)),
    ],
)
def test_real_files(real_data, file, episodes, steps, problems):
    report = inspect_robomimic(real_data(file))
    assert (report.num_episodes, report.num_steps, report.problems) == (episodes, steps, problems)


def test_command(write_robomimic, demos, tmp_path, capsys):
    main = runpy.run_path(str(REPOSITORY / "scripts/check_data.py"))["main"]
    path = write_robomimic(demos)
    path.with_suffix(".h5").write_bytes(path.read_bytes()[:500])
    for target, status, text in (
        (path, 0, "No problems found."),
        (path.with_suffix(".h5"), 2, "truncated or damaged"),
        (tmp_path / "nowhere.hdf5", 2, "nowhere.hdf5 does not exist"),
    ):
        assert main([f"path={target}"]) == status
        captured = capsys.readouterr()
        assert text in (captured.err if status else captured.out)
        assert captured.err.count("\n") == (status == 2)
