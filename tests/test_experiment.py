"""What an experiment makes of a robomimic data set: which episodes, which actions, which environment."""

import json
import sys
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from shortcut_policy.config import Component
from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.data.array_source import ArraySource
from shortcut_policy.data.symmetry import AffineMap, Symmetry
from shortcut_policy.experiment import make_environment, read_demonstrations, recorded_environment, train
from shortcut_policy.experiment_config import (
    DataConfig,
    EnvironmentConfig,
    ExperimentConfig,
    RolloutConfig,
    ValidationConfig,
)
from shortcut_policy.training.config import TrainerConfig
from shortcut_policy.vision_config import VisionConfig

ENV_ARGS = {
    "env_name": "Lift",
    "type": 1,
    "env_version": "1.4.1",
    "env_kwargs": {"robots": ["Panda"], "controller_configs": {"type": "OSC_POSE", "control_delta": True}},
}
MASKS = {"filter_key": "train", "valid_filter_key": "valid"}
ABSOLUTE = {"action": ArraySource("actions_abs"), "action_codec": ActionCodec("absolute_pose")}


@pytest.fixture
def lift(tmp_path):
    """Six demonstrations of 30 steps of Lift; `mask/train` lists four of them and `mask/valid` one."""
    rng = np.random.default_rng(0)
    path = tmp_path / "lift.hdf5"
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps(ENV_ARGS)
        for i in range(6):
            demo = file.create_group(f"data/demo_{i}")
            demo["actions"] = rng.uniform(-1, 1, (30, 7))
            demo["actions_abs"] = rng.uniform(-3, 3, (30, 7))
            demo["obs/robot0_eef_pos"] = np.full((30, 3), i) + rng.uniform(0, 0.1, (30, 3))
        file["mask/train"] = np.array(["demo_0", "demo_2", "demo_3", "demo_5"], "S")
        file["mask/valid"] = np.array(["demo_4"], "S")
    return path


def data_config(path, **changes):
    config = {"observations": {"robot0_eef_pos": ArraySource()}, "format": "robomimic", **ABSOLUTE}
    return DataConfig(str(path), **config | changes)


def test_actions_are_read_in_the_representation_of_the_task(lift):
    data = read_demonstrations(data_config(lift, valid_fraction=0.2))
    assert data.training.actions.shape == (150, 10)
    assert data.held_out.num_episodes == 1
    assert data.training.action_codec == ActionCodec("absolute_pose")
    assert data.env_args.env_name == "Lift"
    delta = {"action": ArraySource("actions"), "action_codec": ActionCodec("delta_pose"), "valid_fraction": 0.0}
    assert read_demonstrations(data_config(lift, **delta)).training.actions.shape == (180, 7)


def test_the_split_may_be_the_data_sets_own(lift):
    data = read_demonstrations(data_config(lift, filter_key="train", valid_filter_key="valid"))
    assert data.training.names == ("demo_0", "demo_2", "demo_3", "demo_5")
    assert data.held_out.names == ("demo_4",)
    assert data.held_out.actions.shape == (30, 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": ArraySource("actions")}, "actions of .* are delta_pose actions, not absolute_pose.*convert_demos"),
        ({"action_codec": ActionCodec()}, "actions_abs of .* are absolute_pose actions, not as_stored"),
        ({"action_codec": ActionCodec("absolute_pose", arms=2)}, "have 14 numbers, got 7"),
        ({"filter_key": "best"}, "no filter key 'best': it has train, valid"),
    ],
)
def test_what_does_not_fit_the_data_is_refused(lift, changes, message):
    with pytest.raises(ValueError, match=message):
        read_demonstrations(data_config(lift, **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "zarr", "filter_key": "train"}, "filter_key=train needs data.format=robomimic"),
        ({"valid_filter_key": "valid"}, "valid_filter_key=valid would hold out demonstrations that are trained on"),
    ],
)
def test_filter_keys_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        data_config("lift.hdf5", **changes)


def test_the_environment_is_the_recorded_one_and_takes_the_actions_of_the_data(lift):
    data = read_demonstrations(data_config(lift))
    environment = recorded_environment(EnvironmentConfig("lift", {"max_steps": 100}), data)
    assert environment.options == {"env_args": ENV_ARGS, "actions": "absolute_pose", "max_steps": 100}
    assert environment.name == "lift"


def test_without_env_args_of_robosuite_the_environment_stays_as_configured(lift):
    data = read_demonstrations(data_config(lift))
    environment = EnvironmentConfig("pusht")
    for env_args in (None, replace(data.env_args, type=2)):
        assert recorded_environment(environment, replace(data, env_args=env_args)) is environment


def test_a_training_for_another_environment_does_not_begin(lift, tmp_path):
    config = ExperimentConfig(
        task="can",
        data=data_config(lift),
        network=Component("unet1d"),
        objective=Component("shortcut"),
        trainer=TrainerConfig(steps=1),
        environment=EnvironmentConfig("can"),
        output=str(tmp_path / "run"),
    )
    with pytest.raises(ValueError, match="env_args are of 'Lift', but the environment is 'PickPlaceCan'"):
        train(config)
    assert not (tmp_path / "run").exists()


def test_an_environment_of_another_version_is_warned_of_once_and_by_whoever_starts_the_workers():
    environment = EnvironmentConfig("lift", {"env_args": ENV_ARGS})
    with pytest.warns(UserWarning, match=r"recorded with robosuite 1\.4\.1, installed is") as warned:
        make_environment(environment)
    assert len(warned) == 1


@pytest.fixture
def seen_lift(lift):
    """The same demonstrations with images of a camera."""
    rng = np.random.default_rng(1)
    with h5py.File(lift, "a") as file:
        for demo in file["data"].values():
            demo["obs/agentview_image"] = rng.integers(256, size=(30, 12, 12, 3), dtype=np.uint8)
    return lift


SEEN = {"observations": {"agentview_image": ArraySource(), "robot0_eef_pos": ArraySource()}}


def train_seeing(path, output, *, environment=None, rollout_every=0, **changes):
    encoder = Component("small_cnn", {"widths": [8], "keypoints": 2, "feature_dim": 4})
    config = ExperimentConfig(
        task="lift_image",
        data=data_config(path, **SEEN, **changes),
        network=Component("unet1d", {"widths": [8, 16], "step_embedding_dim": 8}),
        objective=Component("shortcut", {"base_steps": 8}),
        trainer=TrainerConfig(steps=6, batch_size=8, progress=False),
        validation=ValidationConfig(every=3, windows=8),
        vision=VisionConfig(encoder, brightness=0.2),
        environment=environment,
        rollout=RolloutConfig(rollout_every),
        output=str(output),
        device="cpu",
    )
    train(config)
    return load_file(output / "checkpoints/last/model.safetensors"), (output / "metrics.jsonl").read_text().splitlines()


@pytest.mark.parametrize(("split", "workers"), [({"valid_fraction": 0.2}, 1), (MASKS, 0)])
def test_a_training_ends_with_the_same_weights_wherever_its_images_lie(seen_lift, tmp_path, split, workers):
    resident, measured = train_seeing(seen_lift, tmp_path / "resident", **split)
    streamed, measured_too = train_seeing(seen_lift, tmp_path / "streamed", image_workers=workers, **split)
    assert resident.keys() == streamed.keys()
    assert all(torch.equal(resident[key], streamed[key]) for key in resident)
    errors = [json.loads(lines[-1])["valid/action_error_1_steps"] for lines in (measured, measured_too)]
    assert errors[0] == errors[1]


@pytest.mark.filterwarnings("ignore:Lift was recorded with robosuite")
def test_a_training_without_rollouts_needs_neither_gl_nor_a_simulator(seen_lift, tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "off")
    for name in ("mujoco", "robosuite"):
        monkeypatch.setitem(sys.modules, name, None)  # not installed
    environment = EnvironmentConfig("lift", {"cameras": ["agentview"], "camera_size": 12})
    train_seeing(seen_lift, tmp_path / "run", environment=environment)
    with pytest.raises(ValueError, match="MUJOCO_GL=off forbids pictures"):
        train_seeing(seen_lift, tmp_path / "rollouts", environment=environment, rollout_every=3)
    with pytest.raises(ValueError, match="MUJOCO_GL=off forbids pictures"):
        make_environment(environment)
    with pytest.raises(ValueError, match="unknown environment 'lfit'"):
        train_seeing(seen_lift, tmp_path / "misspelled", environment=replace(environment, name="lfit"))
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["run"]


def test_images_that_stay_in_the_file_are_left_there(seen_lift):
    data = read_demonstrations(data_config(seen_lift, **SEEN, image_workers=2))
    assert set(data.training.observations) == {"robot0_eef_pos"}
    assert data.stored_images.shapes == {"agentview_image": (12, 12, 3)}
    assert read_demonstrations(data_config(seen_lift, **SEEN)).stored_images is None
    assert read_demonstrations(data_config(seen_lift, image_workers=2)).stored_images is None, "there are none"


def test_images_in_the_file_have_no_symmetry(seen_lift):
    mirror = Symmetry("mirror", {"robot0_eef_pos": AffineMap(((1.0,),))}, AffineMap(((1.0,),)))
    with pytest.raises(ValueError, match=r"data\.symmetries cannot map images: leave it empty"):
        read_demonstrations(data_config(seen_lift, **SEEN, image_workers=2, symmetries=(mirror,)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "zarr", "image_workers": 2}, "image_workers=2 needs data.format=robomimic: say null"),
        ({"image_workers": -1}, "image_workers must not be negative, got -1"),
    ],
)
def test_workers_that_cannot_read_images_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        data_config("lift.hdf5", **changes)
