"""Recordings become data sets: in the real simulator, once interrupted and once not."""

import json
import multiprocessing
import shutil
import signal
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from envs.replay import OpenLoop, ReplayedDemo
from shortcut_policy.conversion import ConversionConfig, convert, format_report
from shortcut_policy.data.array_source import ArraySource
from shortcut_policy.data.env_args import read_env_args
from shortcut_policy.data.robomimic_hdf5 import read_robomimic
from shortcut_policy.data.robomimic_writer import RobomimicWriter

STEPS = 25  # of each of the two demos of `recording`


@pytest.fixture(scope="module")
def conversion(recording):
    """(report, output, a copy of what was there when the first of the two demos was finished)."""
    pytest.importorskip("robosuite")
    output = recording.with_name("lift.hdf5")

    def copy_parts(done, total):
        assert total == 2 * STEPS
        if done == STEPS:
            shutil.copytree(f"{output}.parts", recording.with_name("broken.hdf5.parts"))

    report = convert(ConversionConfig(str(recording), str(output), workers=2), copy_parts)
    return report, output, recording.with_name("broken.hdf5")


def test_the_data_set_is_in_robomimics_layout(recording, conversion):
    _, output, _ = conversion
    with h5py.File(recording) as raw, h5py.File(output) as file:
        assert file["data"].attrs["total"] == 2 * STEPS
        env_args = json.loads(file["data"].attrs["env_args"])
        assert (env_args["env_name"], env_args["type"], env_args["env_version"]) == ("Lift", 1, "1.4.0")
        assert env_args["env_kwargs"]["controller_configs"]["control_delta"] is True
        assert {"converted_with_robosuite", "converted_with_mujoco", "source_sha256"} <= set(file["data"].attrs)
        assert sorted([*file["mask/train"], *file["mask/valid"]]) == [b"demo_1", b"demo_3"]
        for name in ("demo_1", "demo_3"):
            demo, recorded = file["data"][name], raw["data"][name]
            assert demo.attrs["num_samples"] == STEPS
            assert demo.attrs["model_file"] == recorded.attrs["model_file"]
            np.testing.assert_array_equal(demo["states"][:], recorded["states"][:])
            np.testing.assert_array_equal(demo["actions"][:], np.clip(recorded["actions"][:], -1, 1))
            assert demo["states"].dtype == demo["actions"].dtype == np.float64
            assert demo["actions_abs"].shape == (STEPS, 7)
            assert demo["dones"][:].tolist() == [0] * (STEPS - 1) + [1]
            assert not demo["rewards"][:].any()
            assert "next_obs" not in demo
            assert demo["obs/object"].shape == (STEPS, 10)
            assert {values.dtype for values in demo["obs"].values()} == {np.dtype(np.float32)}
            np.testing.assert_allclose(demo["obs/cube_pos"][:], recorded["states"][:, 10:13], atol=1e-6)
        largest = max(np.abs(demo["actions"][:]).max() for demo in raw["data"].values())
        assert largest > 1, "there is something to clip"


def test_the_report_is_what_the_demos_say(conversion):
    report, output, _ = conversion
    assert [demo.name for demo in report.demos] == ["demo_1", "demo_3"]
    with h5py.File(output) as file:
        for demo in report.demos:
            attributes = file["data"][demo.name].attrs
            assert attributes["replay_success_absolute"] == demo.absolute.success
            assert attributes["replay_max_position_error_absolute"] == demo.absolute.max_position_error < 1e-3
            assert attributes["replay_max_rotation_error_absolute"] == demo.absolute.max_rotation_error < 1e-2
            assert attributes["replay_mean_position_error_delta"] == demo.delta.mean_position_error < 5e-3
    text = format_report(report)
    assert "0 of 2 demos still succeed when their delta actions are replayed, 0 of 2 with absolute ones" in text
    assert "recorded with robosuite 1.4.0" in text
    assert text.count("\n") == 4


def test_both_readers_read_it(conversion):
    _, output, _ = conversion
    episodes = read_robomimic(output, {"object": ArraySource("object")}, ArraySource("actions_abs"))
    assert episodes.names == ("demo_1", "demo_3")
    assert read_env_args(output).env_version == "1.4.0"
    pytest.importorskip("robomimic")
    import robomimic.utils.obs_utils as obs_utils
    from robomimic.utils.dataset import SequenceDataset

    obs_utils.initialize_obs_modality_mapping_from_dict({"low_dim": ["object"]})
    theirs = SequenceDataset(
        str(output), ["object"], ["actions_abs", "dones"], seq_length=STEPS, load_next_obs=False, hdf5_cache_mode=None
    )
    assert len(theirs) == 2 * STEPS
    first = theirs[0]
    np.testing.assert_array_equal(first["obs"]["object"].reshape(STEPS, -1), episodes.observations["object"][:STEPS])
    np.testing.assert_array_equal(first["actions_abs"].astype(np.float32), episodes.actions[:STEPS])
    train = SequenceDataset(str(output), ["object"], ["actions"], load_next_obs=False, filter_by_attribute="train")
    assert len(train) == STEPS


def test_an_interrupted_conversion_goes_on_and_ends_the_same(recording, conversion, run_command):
    _, output, broken = conversion
    words = (f"input={recording}", f"output={broken}", "workers=1")
    code, _, errors = run_command("convert_demos", *words, "camera_size=96")
    assert code == 2
    assert "camera_size is 84 there and 96 here" in errors
    code, out, errors = run_command("convert_demos", *words)
    assert code == 0, errors
    assert "0 of 2 demos still succeed" in out
    assert broken.read_bytes() == output.read_bytes()
    assert not broken.with_name("broken.hdf5.parts").exists()
    assert multiprocessing.active_children() == []

    before = broken.read_bytes()
    code, _, errors = run_command("convert_demos", *words)
    assert code == 2
    assert "broken.hdf5 exists" in errors
    assert broken.read_bytes() == before


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_ctrl_c_says_how_to_go_on(recording, tmp_path, start_command):
    process = start_command("scripts/convert_demos.py", f"input={recording}", f"output={tmp_path / 'lift.hdf5'}")
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    deadline = time.monotonic() + 60
    while len(children.read_text().split()) < 3:  # two workers, and Python's resource tracker
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)  # of the workers too, which would hold the pipe open
    assert process.returncode == 130
    assert errors == f"stopped: the same command goes on with {tmp_path / 'lift.hdf5'}\n"
    assert list(tmp_path.iterdir()) == []


def drop_model(data):
    del data["demo_3"].attrs["model_file"]


def name_model(data):
    data["demo_3"].attrs["model_file"] = "model_3.xml"


def drop_states(data):
    del data["demo_3/states"]


def replace(array, change):
    def spoil(data):
        values = change(data[f"demo_3/{array}"][:])
        del data[f"demo_3/{array}"]
        data[f"demo_3/{array}"] = values

    return spoil


def put_nan(values):
    values[7, 2] = np.nan
    return values


def change_env(**changes):
    def spoil(data):
        data.attrs["env_info"] = json.dumps({**json.loads(data.attrs["env_info"]), **changes})

    return spoil


def take_absolute(data):
    info = json.loads(data.attrs["env_info"])
    info["controller_configs"]["control_delta"] = False
    data.attrs["env_info"] = json.dumps(info)


def drop_env(data):
    del data.attrs["env_info"]


@pytest.mark.parametrize(
    ("spoil", "quoted"),
    [
        (drop_model, "demo_3 of {} has no embedded model"),
        (name_model, "demo_3 of {} has no embedded model, its model_file is 'model_3.xml'"),
        (drop_states, "demo_3 of {} has no states"),
        (replace("states", put_nan), "states of demo_3 of {} holds NaN or infinity at step 7"),
        (replace("actions", put_nan), "actions of demo_3 of {} holds NaN or infinity at step 7"),
        (replace("actions", lambda values: values[:, :6]), "demo_3 of {} are 6 wide"),
        (replace("actions", lambda values: values[:-1]), "25 states, but 24 actions"),
        (take_absolute, "absolute_pose actions, not delta_pose"),
        (drop_env, "env_args"),
        (change_env(env_name="Lyft"), "'Lyft'"),
    ],
)
def test_recordings_that_cannot_be_replayed(recording, tmp_path, run_command, spoil, quoted):
    path = tmp_path / "raw.hdf5"
    shutil.copy(recording, path)
    with h5py.File(path, "r+") as file:
        spoil(file["data"])
    check_refusal(run_command, tmp_path, (f"input={path}",), quoted.format(path))


def test_other_mistakes(recording, tmp_path, run_command, monkeypatch):
    truncated = tmp_path / "truncated.hdf5"
    truncated.write_bytes(recording.read_bytes()[:-1000])
    check_refusal(run_command, tmp_path, (f"input={truncated}",), "truncated")
    check_refusal(run_command, tmp_path, ("input=nowhere.hdf5",), "nowhere.hdf5")
    for words, quoted in [
        (("workers=0",), "workers must be positive, got 0"),
        (("keep=some",), "'some'"),
        (("valid_fraction=2",), "2"),
        (("done_mode=3",), "3"),
        (("cameras=agentview",), "'agentview'"),
    ]:
        check_refusal(run_command, tmp_path, (f"input={recording}", *words), quoted)
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    check_refusal(run_command, tmp_path, (f"input={recording}", "cameras=[agentview]"), "MUJOCO_GL=disabled")


def check_refusal(run_command, tmp_path, words, quoted):
    before = sorted(tmp_path.iterdir())
    code, _, errors = run_command("convert_demos", *words, f"output={tmp_path / 'lift.hdf5'}")
    assert code == 2
    assert quoted in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert sorted(tmp_path.iterdir()) == before


def test_a_mistake_found_late_leaves_nothing(recording, tmp_path, monkeypatch):
    def replay_one_only(path, demos, *_, **__):
        writer = RobomimicWriter(tmp_path / "lift.hdf5", {})
        writer.parts.mkdir()
        yield from ()
        raise ValueError("demo_3 does not fit its model")

    monkeypatch.setattr("shortcut_policy.conversion.replay_demos", replay_one_only)
    with pytest.raises(ValueError, match="does not fit"):
        convert(ConversionConfig(str(recording), str(tmp_path / "lift.hdf5")))
    assert list(tmp_path.iterdir()) == []


GOOD, BAD = OpenLoop(True, 0.0, 0.0, 0.0, 0.0), OpenLoop(False, 1.0, 0.5, 1.0, 0.5)


@pytest.fixture
def replays(monkeypatch):
    """Return a function that takes (delta, absolute) of each demo; then the simulator is not asked."""

    def fake(**outcomes):
        def replay(path, demos, *_, **__):
            for name in demos:
                delta, absolute = outcomes[name]
                yield (
                    name,
                    ReplayedDemo(
                        observations={"object": np.arange(STEPS + 1, dtype=np.float32)[:, None]},
                        actions=np.zeros((STEPS, 7)),
                        absolute_actions=np.zeros((STEPS, 7)),
                        rewards=np.zeros(STEPS),
                        successes=np.arange(STEPS) == 3,
                        delta=delta,
                        absolute=absolute,
                    ),
                )

        monkeypatch.setattr("shortcut_policy.conversion.replay_demos", replay)

    return fake


def test_only_demos_that_succeed_with_both_kinds_of_actions_are_kept(recording, tmp_path, replays):
    words = {"input": str(recording), "output": str(tmp_path / "lift.hdf5"), "keep": "successful"}
    replays(demo_1=(BAD, GOOD), demo_3=(GOOD, BAD))
    with pytest.raises(ValueError, match="keep=all"):
        convert(ConversionConfig(**words))
    assert not (tmp_path / "lift.hdf5").exists()

    report = convert(ConversionConfig(**{**words, "keep": "all"}))  # goes on: the replays are there
    assert [demo.written for demo in report.demos] == [True, True]
    (tmp_path / "lift.hdf5").unlink()

    replays(demo_1=(GOOD, GOOD), demo_3=(BAD, GOOD))
    report = convert(ConversionConfig(**words))
    assert [demo.written for demo in report.demos] == [True, False]
    text = format_report(report)
    assert "1 of 2 demos still succeed when their delta actions are replayed, 2 of 2 with absolute ones" in text
    assert "left out" in text
    with h5py.File(tmp_path / "lift.hdf5") as file:
        assert set(file["data"]) == {"demo_1"}
        assert "mask" not in file, "one demo cannot be split"


def test_dones_and_next_observations(recording, tmp_path, replays):
    replays(demo_1=(GOOD, GOOD), demo_3=(GOOD, GOOD))
    for mode, steps in ((0, [3]), (1, [STEPS - 1]), (2, [3, STEPS - 1])):
        output = tmp_path / f"{mode}.hdf5"
        convert(ConversionConfig(str(recording), str(output), done_mode=mode, next_obs=mode == 0))
        with h5py.File(output) as file:
            demo = file["data/demo_1"]
            assert np.flatnonzero(demo["dones"][:]).tolist() == steps
            assert ("next_obs" in demo) == (mode == 0)
            if mode == 0:
                np.testing.assert_array_equal(demo["next_obs/object"][:], demo["obs/object"][:] + 1)


def test_a_data_set_keeps_its_masks_when_it_is_converted_again(recording, tmp_path, replays):
    replays(demo_1=(GOOD, GOOD), demo_3=(GOOD, BAD))
    first, second = tmp_path / "first.hdf5", tmp_path / "second.hdf5"
    convert(ConversionConfig(str(recording), str(first)))
    with h5py.File(first, "r+") as file:
        file["mask/better"] = np.array(["demo_3", "demo_1"], dtype="S")
    convert(ConversionConfig(str(first), str(second), keep="successful"))
    with h5py.File(second) as file:
        assert file["mask/better"][:].tolist() == [b"demo_1"]
        assert [*file["mask"]] == ["better", *(key for key in ("train", "valid") if key in file["mask"])]
        assert json.loads(file["data"].attrs["env_args"])["env_version"] == "1.4.0"
