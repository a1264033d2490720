"""Policies from camera images, from the data to rollouts in the real simulators, in reduced form."""

import json

import h5py
import numpy as np
import pytest
import zarr

from shortcut_policy import Policy

TINY = (
    "network.widths=[8,16]",
    "vision.encoder.options={widths: [8, 8], keypoints: 4, feature_dim: 8}",
    "trainer.batch_size=8",
    "trainer.steps=4",
    "trainer.progress=false",
    "validation.windows=8",
    "validation.num_steps=[1]",
    "data.valid_fraction=0.25",
    "environment.workers=0",
    "device=cpu",
)
SHORT = ("steps=[1,2]", "episodes=2", "videos=1", "latency_calls=2", "num_envs=2", "workers=0", "device=cpu")


def result_of(run):
    return json.loads((run / "evaluation" / "result.json").read_text())


def test_push_t_from_images(tmp_path, demonstrations, run_command):
    pytest.importorskip("gym_pusht", reason="gym-pusht is not installed (extra pusht)")
    group = zarr.open_group(demonstrations, mode="a")
    images = np.random.default_rng(0).integers(256, size=(120, 96, 96, 3))
    group.create_array("data/img", data=images.astype(np.float32))  # as Diffusion Policy stores them
    run = tmp_path / "run"
    words = ("task=pusht_image", f"data.path={demonstrations}", *TINY, "environment.options.max_steps=10")
    code, _, errors = run_command("train_policy", *words, f"output={run}")
    assert code == 0, errors
    config = Policy.from_pretrained(run / "checkpoints" / "last").config
    assert dict(config.image_shapes) == {"image": (96, 96, 3)}
    assert dict(config.observation_dims) == {"agent_pos": 2}
    code, _, errors = run_command("eval_policy", f"checkpoint={run}", *SHORT)
    assert code == 0, errors
    assert [row["steps"] for row in result_of(run)["rows"]] == [1, 2]
    assert all(0 <= row["mean"] <= 1 for row in result_of(run)["rows"])


def test_lift_from_two_cameras(tmp_path, gl_backend, run_command):
    pytest.importorskip("robosuite", reason="robosuite is not installed (extra robosuite)")
    data, run = tmp_path / "lift.hdf5", tmp_path / "run"
    words = ("task=lift", "episodes=1", "cameras=[agentview,robot0_eye_in_hand]", "camera_size=32", "workers=1")
    words += ("valid_fraction=0",)
    code, _, errors = run_command("collect_demos", *words, f"output={data}")
    assert code == 0, errors
    with h5py.File(data) as file:
        images = file["data/demo_0/obs/robot0_eye_in_hand_image"]
        assert images.shape[1:] == (32, 32, 3)
        assert images[()].std() > 10, "the camera sees something"
    words = ("task=lift_image", f"data.path={data}", *TINY, "environment.options.max_steps=2")
    words += ("environment.options.camera_size=32", "data.valid_fraction=0", "data.image_workers=1")
    code, _, errors = run_command("train_policy", *words, f"output={run}")
    assert code == 0, errors
    config = Policy.from_pretrained(run / "checkpoints" / "last").config
    assert set(config.image_shapes) == {"agentview_image", "robot0_eye_in_hand_image"}
    assert "object" not in config.observation_dims
    code, _, errors = run_command("eval_policy", f"checkpoint={run}", *SHORT, "steps=[1]", "episodes=1", "videos=0")
    assert code == 0, errors
    assert [row["success"] for row in result_of(run)["rows"]] == [0.0]
