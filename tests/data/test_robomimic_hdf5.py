import contextlib
import io
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from shortcut_policy.data.array_source import ArraySource
from shortcut_policy.data.robomimic_hdf5 import open_robomimic, read_robomimic
from shortcut_policy.data.windows import make_windows

LOW_DIM = {"robot0_eef_pos": ArraySource(), "object": ArraySource()}
IMAGES = {"agentview_image": ArraySource(), "robot0_eye_in_hand_image": ArraySource()}


@pytest.fixture
def demos(make_demo):
    """Three demos; in alphabetical order demo_10 would come before demo_2."""
    return {"demo_10": make_demo(3, "v1.5"), "demo_0": make_demo(4, "v1.5"), "demo_2": make_demo(2, "v1.5")}


def joined(demos, name, order=("demo_0", "demo_2", "demo_10")):
    return np.concatenate([demos[demo][name] for demo in order])


# Every layout in the wild


@pytest.mark.parametrize(
    ("layout", "options"),
    [
        ("v0.1", {}),
        ("v0.1", {"num_samples": False, "total": False, "env_args": None}),
        ("v1.4.1", {"masks": {"train": ["demo_0"]}}),
        ("v1.5", {"compression": "gzip"}),
    ],
)
def test_every_layout(write_robomimic, make_demo, layout, options):
    demos = {name: make_demo(length, layout) for name, length in {"demo_0": 4, "demo_2": 2, "demo_10": 3}.items()}
    path = write_robomimic(demos, **options)
    episodes = read_robomimic(path, LOW_DIM)
    assert episodes.names == ("demo_0", "demo_2", "demo_10")
    assert episodes.episode_ends.tolist() == [4, 6, 9]
    assert episodes.source == str(path)
    assert list(episodes.observations) == list(LOW_DIM)
    for key, values in episodes.observations.items():
        assert np.array_equal(values, joined(demos, f"obs/{key}").astype(np.float32))
    assert np.array_equal(episodes.actions, joined(demos, "actions").astype(np.float32))


def test_images_stay_uint8(write_robomimic, demos):
    episodes = read_robomimic(write_robomimic(demos), LOW_DIM | IMAGES, ArraySource("actions_abs"))
    for key in IMAGES:
        assert episodes.observations[key].dtype == np.uint8
        assert np.array_equal(episodes.observations[key], joined(demos, f"obs/{key}"))
    assert np.array_equal(episodes.actions, joined(demos, "actions_abs").astype(np.float32))


def test_nested_names_columns_and_what_lies_beside_the_observations(write_robomimic, demos):
    for number, demo in enumerate(demos.values()):
        length = len(demo["actions"])
        demo["obs/policy/joint_pos"] = np.full((length, 2), number, np.float32)
        demo["states/articulation/robot/joint_position"] = np.arange(length)[:, None] * [1, 10]
        demo["obs/gripper"] = np.arange(length) % 2 == 0
    observations = {
        "policy/joint_pos": ArraySource(),
        "second_joint": ArraySource("/states/articulation/robot/joint_position", (1, 2)),
        "gripper": ArraySource(),
    }
    episodes = read_robomimic(write_robomimic(demos), observations, ArraySource("action_dict/abs_pos", (0, 2)))
    assert episodes.observations["policy/joint_pos"].tolist() == [[1, 1]] * 4 + [[2, 2]] * 2 + [[0, 0]] * 3
    assert episodes.observations["second_joint"][:, 0].tolist() == [0, 10, 20, 30, 0, 10, 0, 10, 20]
    assert episodes.observations["gripper"][:4].tolist() == [[1], [0], [1], [0]]
    assert np.array_equal(episodes.actions, joined(demos, "action_dict/abs_pos")[:, :2])


def test_filter_keys(write_robomimic, demos):
    path = write_robomimic(demos, masks={"train": ["demo_10", "demo_0"], "absent": ["demo_0", "demo_7"], "none": []})
    with h5py.File(path, "a") as file:
        del file["mask/none"]
        file["mask/none"] = np.array([], "S8")
        file["mask/fixed"] = np.array([b"demo_2"])  # fixed-length bytes, as robomimic writes them
    episodes = read_robomimic(path, LOW_DIM, filter_key="train")
    assert episodes.names == ("demo_0", "demo_10")
    assert np.array_equal(episodes.actions, joined(demos, "actions", episodes.names).astype(np.float32))
    assert read_robomimic(path, LOW_DIM, filter_key="fixed").names == ("demo_2",)
    for key, message in {
        "valid": "no filter key 'valid': it has absent, fixed, none, train",
        "absent": "filter key 'absent' lists demo_7, but .* has no such demo",
        "none": "filter key 'none' of .* lists no demos",
    }.items():
        with pytest.raises(ValueError, match=message):
            read_robomimic(path, LOW_DIM, filter_key=key)
    with pytest.raises(ValueError, match="has no filter key 'train': it has no filter keys"):
        read_robomimic(write_robomimic(demos, name="other.hdf5"), LOW_DIM, filter_key="train")


@pytest.mark.parametrize(
    ("file", "observations", "counts"),
    [
        ("isaac/reach_indy7.hdf5", {"eef_pos": 3, "eef_quat": 4, "joint_pos": 6, "pose_command": 7}, (100, 5523, 6)),
        ("adroit/door_human.hdf5", {"state": 39}, (25, 6729, 28)),
    ],
)
def test_files_of_other_tools(real_data, file, observations, counts):
    episodes = read_robomimic(real_data(file), dict.fromkeys(observations, ArraySource()))
    assert (episodes.num_episodes, episodes.num_steps, episodes.actions.shape[1]) == counts
    assert {key: values.shape[1] for key, values in episodes.observations.items()} == observations
    assert episodes.names == tuple(f"demo_{number}" for number in range(counts[0]))


def test_states_of_isaac_lab(real_data):
    path = real_data("isaac/reach_indy7.hdf5")
    source = ArraySource("/states/articulation/robot/joint_velocity")
    episodes = read_robomimic(path, {"joint_vel": ArraySource(), "state": source})
    inside = np.setdiff1d(np.arange(episodes.num_steps), episodes.episode_starts)
    # Isaac Lab records the observation before a step and the state after it.
    assert np.array_equal(episodes.observations["joint_vel"][inside], episodes.observations["state"][inside - 1])


def test_raw_recordings_are_to_be_converted(real_data):
    path = real_data("robosuite_human/lift_panda_v1.4.0.hdf5")
    assert read_robomimic(path, {}).num_steps == 1384
    with pytest.raises(
        ValueError, match=r"no obs/robot0_eef_pos: it holds actions, states; .*convert_demos\.py input="
    ):
        read_robomimic(path, LOW_DIM)


# The same windows as robomimic


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    observation_steps=st.integers(1, 3),
    horizon=st.integers(1, 5),
    padded=st.tuples(st.booleans(), st.booleans()),
    filtered=st.booleans(),
    past_actions=st.booleans(),
    layout=st.sampled_from(["v0.1", "v1.5"]),
    data=st.data(),
)
def test_windows_are_those_of_robomimic(
    write_robomimic, make_demo, lengths, observation_steps, horizon, padded, filtered, past_actions, layout, data
):
    robomimic = pytest.importorskip("robomimic.utils.dataset", reason="robomimic is not installed")
    pad_before, pad_after = padded
    names = [f"demo_{number}" for number in data.draw(st.permutations(range(8, 8 + len(lengths))))]
    demos = {
        name: make_demo(length, layout, seed) for seed, (name, length) in enumerate(zip(names, lengths, strict=True))
    }
    chosen = data.draw(st.permutations(names))[: data.draw(st.integers(1, len(names)))] if filtered else names
    # robomimic asserts that a demo has a window where padding is not allowed
    shortest = (0 if pad_before else observation_steps - 1) + (1 if pad_after else horizon)
    assume(all(len(demos[name]["actions"]) >= shortest for name in chosen))
    path = write_robomimic(demos, masks={"some": chosen})
    keys = [*LOW_DIM, *(IMAGES if layout == "v1.5" else ())]
    filter_key = "some" if filtered else None

    with contextlib.redirect_stdout(io.StringIO()):
        theirs = robomimic.SequenceDataset(
            str(path),
            obs_keys=keys,
            dataset_keys=["actions"],
            frame_stack=observation_steps,
            seq_length=horizon,
            pad_frame_stack=pad_before,
            pad_seq_length=pad_after,
            get_pad_mask=True,
            filter_by_attribute=filter_key,
            load_next_obs=False,
        )
    episodes = read_robomimic(path, dict.fromkeys(keys, ArraySource()), filter_key=filter_key)
    past = observation_steps - 1 if past_actions else 0
    ours = make_windows(
        episodes.episode_ends,
        observation_steps=observation_steps,
        horizon=horizon + past,
        action_offset=-past,
        pad_before=None if pad_before else 0,
        pad_after=horizon - 1 if pad_after else 0,
    )
    assert len(ours) == len(theirs)
    for number in range(len(ours)):
        window = theirs[number]  # To - 1 + horizon steps; as stored: float64, images uint8 HWC
        for key in keys:
            expected = window["obs"][key][:observation_steps]
            found = episodes.observations[key][ours.observation_index[number]]
            assert np.array_equal(found, expected if expected.dtype == np.uint8 else expected.astype(np.float32))
        actions = window["actions"][observation_steps - 1 - past :]
        assert np.array_equal(episodes.actions[ours.action_index[number]], actions.astype(np.float32))
        real = window["pad_mask"][observation_steps - 1 - past :, 0]
        assert np.array_equal(ours.action_is_pad[number], ~real)


# What may be wrong with a file


def test_missing_path(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.hdf5 does not exist"):
        read_robomimic(tmp_path / "nowhere.hdf5", LOW_DIM)
    with pytest.raises(ValueError, match="is a folder: give the HDF5 file"):
        read_robomimic(tmp_path, LOW_DIM)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 a zip file", b"<html>not found</html>" * 100])
def test_foreign_file(tmp_path, content):
    path = tmp_path / "demos.hdf5"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"demos\.hdf5 is no HDF5 file: copy or download it again"):
        read_robomimic(path, LOW_DIM)


@pytest.mark.parametrize("share", [0.001, 0.05, 0.3, 0.6, 0.9, 0.999])
def test_truncated_file(write_robomimic, demos, share):
    path = write_robomimic(demos)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"demos\.hdf5 is truncated or damaged: copy or download it again") as error:
        read_robomimic(path, LOW_DIM)
    assert "\n" not in str(error.value)


def test_damaged_chunk(write_robomimic, demos):
    path = write_robomimic(demos, compression="gzip", fletcher32=True)
    with h5py.File(path) as file:
        dataset = file["data/demo_2/obs/object"]
        where = dataset.id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[where : where + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_robomimic(path, LOW_DIM)
    read_robomimic(path, {"robot0_eef_pos": ArraySource()})  # what is not asked for is not touched


def test_file_that_is_being_written(write_robomimic, demos):
    path = write_robomimic(demos)
    program = f"import h5py; file = h5py.File({str(path)!r}, 'a'); print(flush=True); input()"
    environment = {key: value for key, value in os.environ.items() if key != "HDF5_USE_FILE_LOCKING"}
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
    ) as writer:
        writer.stdout.readline()
        with pytest.raises(ValueError, match="is being written by another process: wait"):
            read_robomimic(path, LOW_DIM)
        writer.communicate(b"\n")


def test_other_hdf5_files(tmp_path):
    path = tmp_path / "other.hdf5"
    with h5py.File(path, "w") as file:
        file["images"] = [1, 2]
    with pytest.raises(ValueError, match="no robomimic data set: it has no group data but holds images"):
        read_robomimic(path, LOW_DIM)
    with h5py.File(path, "a") as file:
        file["data/numbers"] = [1, 2]
    with pytest.raises(ValueError, match="holds no demos"):
        read_robomimic(path, LOW_DIM)


# What may be wrong with an array


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs/object": None}, "demo_2 of .* has no obs/object: it holds .*actions, .*obs/robot0_eef_pos, .*rewards"),
        ({"actions": None}, "demo_2 of .* has no actions: it holds"),
        ({"obs/object": np.ones((1, 10))}, "obs/object of demo_2 in .* has 1 rows, but the demo has 2 steps"),
        ({"actions": np.ones((0, 7))}, "demo_2 of .* has no steps: remove it"),
        ({"actions": np.ones((1, 7))}, "demo_2 of .* has num_samples 2, but 1 actions"),
        (
            {"obs/object": np.ones((2, 9))},
            r"object of demo_2 .* float64 \(n, 9\), but that of demo_0 float64 \(n, 10\)",
        ),
        ({"obs/object": np.array([[np.nan] * 10] * 2)}, "'object': NaN or infinity at step 4, .* step 0 of demo_2"),
        ({"actions": np.array([[0.0] * 7, [1e39] * 7])}, "actions: NaN or infinity at step 5, .* step 1 of demo_2"),
        ({"obs/object": np.array([b"a", b"b"])}, "obs/object of demo_2 .* holds no rows of numbers"),
        ({"obs/agentview_image": np.ones((2, 3, 6, 5), np.uint8)}, r"uint8 \(n, 3, 6, 5\), .*move the channels"),
        ({"obs/agentview_image": np.ones((2, 3, 6, 5), np.float32)}, "images are uint8 .*move the channels"),
        (
            {"obs/agentview_image": np.ones((2, 6, 5, 3), np.float32)},
            r"float32 \(n, 6, 5, 3\), .* scale them to 0 \.\.\. 255, round, and store",
        ),
        ({"obs/agentview_image": np.ones((2, 6, 5), np.uint8)}, "give them an axis of channels"),
        ({"obs/agentview_image": np.ones((2, 6, 5, 7), np.uint8)}, "neither numbers .* nor images"),
        (
            {"obs/agentview_image": np.ones((2, 8, 8, 3), np.uint8)},
            r"\(n, 8, 8, 3\), but that of demo_0 uint8 \(n, 6, 5, 3",
        ),
        (
            {"obs/agentview_image": np.ones((2, 5), np.uint8)},
            r"uint8 \(n, 5\), but that of demo_0 uint8 \(n, 6, 5, 3\)",
        ),
    ],
)
def test_refuses_what_does_not_agree(write_robomimic, demos, changes, message):
    path = write_robomimic(demos)
    with h5py.File(path, "a") as file:
        for name, values in changes.items():
            del file["data/demo_2"][name]
            if values is not None:
                file["data/demo_2"][name] = values
    with pytest.raises(ValueError, match=message) as error:
        read_robomimic(path, LOW_DIM | IMAGES)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_refuses_parts_of_images(write_robomimic, demos):
    path = write_robomimic(demos)
    for source in (ArraySource(columns=(0, 2)), ArraySource(transform="cos_sin")):
        with pytest.raises(
            ValueError, match="agentview_image holds images, which take neither columns nor a transform"
        ):
            read_robomimic(path, {"agentview_image": source})
    with pytest.raises(ValueError, match=r"columns 2:11 of object exceed its last axis of 10 \(in /data/demo_0"):
        read_robomimic(path, {"object": ArraySource(columns=(2, 11))})


def test_next_observations_are_not_listed_as_present(write_robomimic, make_demo):
    with open_robomimic(write_robomimic({"demo_0": make_demo(2, "v1.4.1")})) as file:
        assert "next_obs/robot0_eef_pos" in file.arrays("demo_0")
        with pytest.raises(ValueError, match=r"has no obs/x: it holds (?!.*next_obs)"):
            file.array("demo_0", "obs/x")
