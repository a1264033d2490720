"""What is written lies where robomimic looks for it, and an interruption costs nothing that was finished."""

import json

import h5py
import numpy as np
import pytest

from shortcut_policy.data.robomimic_writer import Demo, RobomimicWriter, split_masks

ENV_ARGS = {"env_name": "Lift", "type": 1, "env_version": "1.4.1", "env_kwargs": {"robots": ["Panda"]}}
SETTINGS = {"cameras": ("agentview",), "camera_size": 4}


def demo(steps, seed=0, **others):
    rng = np.random.default_rng(seed)
    observations = {
        "object": rng.normal(size=(steps, 10)).astype(np.float32),
        "agentview_image": rng.integers(0, 256, (steps, 4, 4, 3), np.uint8),
    }
    done = np.arange(steps) == steps - 1
    fields = {
        "actions": rng.normal(size=(steps, 7)),
        "observations": observations,
        "rewards": done.astype(float),
        "dones": done,
        "states": rng.normal(size=(steps, 32)),
        "model": "<mujoco/>",
        "arrays": {"actions_abs": rng.normal(size=(steps, 7))},
        "attributes": {"replay_success_delta": True},
    }
    return Demo(**{**fields, **others})


def write(writer, names=("demo_1", "demo_2", "demo_10")):
    for i, name in enumerate(names):
        if name not in writer.finished():
            writer.add(name, demo(i + 2, seed=i))
    writer.assemble(names, ENV_ARGS, {"train": names[1:], "valid": names[:1]}, {"converted_with_mujoco": "3.9.0"})


def test_everything_lies_where_robomimic_looks_for_it(tmp_path):
    write(RobomimicWriter(tmp_path / "lift.hdf5", SETTINGS))
    with h5py.File(tmp_path / "lift.hdf5") as file:
        assert set(file["data"]) == {"demo_1", "demo_2", "demo_10"}
        assert file["data"].attrs["total"] == 2 + 3 + 4
        assert json.loads(file["data"].attrs["env_args"]) == ENV_ARGS
        assert file["data"].attrs["converted_with_mujoco"] == "3.9.0"
        assert [name.decode() for name in file["mask/train"]] == ["demo_2", "demo_10"]
        assert [name.decode() for name in file["mask/valid"]] == ["demo_1"]
        group, written = file["data/demo_10"], demo(4, seed=2)
        assert dict(group.attrs) == {"num_samples": 4, "model_file": "<mujoco/>", "replay_success_delta": True}
        assert set(group) == {"actions", "actions_abs", "states", "rewards", "dones", "obs"}
        for name, values in written.datasets().items():
            np.testing.assert_array_equal(group[name][:], values)
        assert group["actions"].dtype == group["states"].dtype == np.float64
        assert group["obs/object"].dtype == np.float32
        assert group["dones"][:].tolist() == [0, 0, 0, 1]
        image = group["obs/agentview_image"]
        assert image.dtype == np.uint8
        assert image.chunks == (1, 4, 4, 3)
        assert image.compression is not None
    assert [path.name for path in tmp_path.iterdir()] == ["lift.hdf5"]


def test_next_observations_and_states_are_optional(tmp_path):
    writer = RobomimicWriter(tmp_path / "plain.hdf5", SETTINGS)
    following = {"object": np.ones((3, 10), np.float32)}
    writer.add("demo_0", demo(3, states=None, model=None, arrays={}, next_observations=following))
    writer.assemble(["demo_0"], ENV_ARGS, {}, {})
    with h5py.File(tmp_path / "plain.hdf5") as file:
        assert set(file) == {"data"}
        assert set(file["data/demo_0"]) == {"actions", "rewards", "dones", "obs", "next_obs"}
        assert "model_file" not in file["data/demo_0"].attrs
        assert set(file["data/demo_0/next_obs"]) == {"object"}


def test_a_file_written_in_two_runs_is_that_of_one(tmp_path):
    write(RobomimicWriter(tmp_path / "whole.hdf5", SETTINGS))

    first = RobomimicWriter(tmp_path / "broken.hdf5", SETTINGS)
    first.add("demo_2", demo(3, seed=1))
    (first.parts / ".demo_10.hdf5.4711").write_bytes(b"\x89HDF, killed here")
    (first.parts / ".whole").write_bytes(b"and here")
    again = RobomimicWriter(tmp_path / "broken.hdf5", SETTINGS)
    assert again.finished() == {"demo_2"}
    assert again.attributes("demo_2")["num_samples"] == 3
    write(again)
    assert (tmp_path / "broken.hdf5").read_bytes() == (tmp_path / "whole.hdf5").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.hdf5", "whole.hdf5"]


def test_nothing_is_written_before_the_first_demo(tmp_path):
    writer = RobomimicWriter(tmp_path / "lift.hdf5", SETTINGS)
    assert writer.finished() == frozenset()
    assert list(tmp_path.iterdir()) == []


def test_other_settings_do_not_go_on(tmp_path):
    RobomimicWriter(tmp_path / "lift.hdf5", SETTINGS).add("demo_1", demo(2))
    with pytest.raises(FileExistsError, match="camera_size is 4 there and 8 here"):
        RobomimicWriter(tmp_path / "lift.hdf5", {**SETTINGS, "camera_size": 8})
    assert RobomimicWriter(tmp_path / "lift.hdf5", SETTINGS).finished() == {"demo_1"}


def test_what_is_not_ours_is_left_alone(tmp_path):
    output = tmp_path / "lift.hdf5"
    output.write_text("mine")
    with pytest.raises(FileExistsError, match=r"lift\.hdf5 exists"):
        RobomimicWriter(output, SETTINGS)
    assert output.read_text() == "mine"
    foreign = tmp_path / "can.hdf5.parts"
    foreign.mkdir()
    (foreign / "cat.png").touch()
    with pytest.raises(FileExistsError, match="not ours"):
        RobomimicWriter(tmp_path / "can.hdf5", SETTINGS)


def test_a_file_that_appears_meanwhile_is_not_written_over(tmp_path):
    writer = RobomimicWriter(tmp_path / "lift.hdf5", SETTINGS)
    writer.add("demo_1", demo(2))
    writer.output.write_text("mine")
    with pytest.raises(FileExistsError, match="has come to exist"):
        writer.assemble(["demo_1"], ENV_ARGS, {}, {})
    assert writer.output.read_text() == "mine"
    assert writer.finished() == {"demo_1"}


def test_a_damaged_part_is_named(tmp_path):
    writer = RobomimicWriter(tmp_path / "lift.hdf5", SETTINGS)
    writer.add("demo_1", demo(2))
    part = writer.parts / "demo_1.hdf5"
    part.write_bytes(part.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"demo_1\.hdf5 is damaged"):
        writer.assemble(["demo_1"], ENV_ARGS, {}, {})
    assert not writer.output.exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"actions": np.zeros((0, 7))}, "at least one step"),
        ({"states": np.zeros((4, 32))}, "states has 4 rows, but there are 3 actions"),
        ({"arrays": {"actions_abs": np.full((3, 7), np.nan)}}, "actions_abs holds NaN"),
        ({"observations": {"object": np.full((3, 2), np.inf, np.float32)}}, "obs/object holds NaN or infinity"),
    ],
)
def test_wrong_demos_are_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        demo(3, **wrong)


def test_the_split_is_seeded_and_leaves_something_on_either_side():
    names = tuple(f"demo_{i}" for i in range(20))
    masks = split_masks(names, 0.1, seed=0)
    assert len(masks["valid"]) == 2
    assert tuple(sorted((*masks["train"], *masks["valid"]), key=names.index)) == names
    assert [names.index(name) for name in masks["train"]] == sorted(names.index(name) for name in masks["train"])
    assert masks == split_masks(names, 0.1, seed=0)
    assert masks != split_masks(names, 0.1, seed=1)
    assert len(split_masks(names[:3], 0.1, seed=0)["valid"]) == 1
    assert len(split_masks(names[:3], 0.99, seed=0)["train"]) == 1
    assert split_masks(names[:1], 0.1, seed=0) == {}
    assert split_masks(names, 0, seed=0) == {}
    with pytest.raises(ValueError, match=r"1\.5"):
        split_masks(names, 1.5, seed=0)
