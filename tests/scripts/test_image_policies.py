"""Policies from camera images, from the data to rollouts in the real simulators, in reduced form."""

import json

import h5py
import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file

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
TINY_VIT = "{model: test_vit, pretrained: false, image_size: 32}"
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


@pytest.fixture
def seen_lift(tmp_path):
    """Two demonstrations of 12 random steps of Lift, from two cameras."""
    rng, path = np.random.default_rng(0), tmp_path / "lift_image.hdf5"
    with h5py.File(path, "w") as file:
        file.create_group("data").attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {}})
        for name in ("demo_0", "demo_1"):
            demo = file.create_group(f"data/{name}")
            demo["actions"] = demo["actions_abs"] = rng.uniform(-1, 1, (12, 7))
            for camera in ("agentview", "robot0_eye_in_hand"):
                demo[f"obs/{camera}_image"] = rng.integers(256, size=(12, 32, 32, 3), dtype=np.uint8)
            for key, size in (("eef_pos", 3), ("eef_quat", 4), ("gripper_qpos", 2)):
                demo[f"obs/robot0_{key}"] = rng.uniform(-1, 1, (12, size))
    return path


@pytest.mark.filterwarnings("ignore:Lift was recorded with robosuite")
@pytest.mark.parametrize(
    ("package", "encoders", "words"),
    [
        ("torch", 1, (*TINY[:2], "vision.shared=true")),
        ("torchvision", 1, (TINY[0], "vision=resnet18", "vision.shared=true")),
        ("timm", 1, (TINY[0], "vision=timm", f"vision.encoder.options={TINY_VIT}")),
        # at its beginning, a transformer takes no notice of what it is given
        ("torch", 2, (TINY[1], "network=transformer_tiny", "network.width=16", "network.depth=1", "trainer.steps=4")),
    ],
)
def test_every_encoder_learns_where_nothing_draws(
    tmp_path, seen_lift, run_command, monkeypatch, package, encoders, words
):
    pytest.importorskip(package)
    monkeypatch.setenv("MUJOCO_GL", "off")
    run = tmp_path / "run"
    words = (
        "task=lift_image",
        f"data.path={seen_lift}",
        *TINY[2:],
        "data.valid_fraction=0.5",
        "trainer.steps=2",
        *words,
    )
    code, _, errors = run_command("train_policy", *words, f"output={run}")
    assert code == 0, errors
    policy = Policy.from_pretrained(run / "checkpoints/last")
    assert len(policy.network.encoder.images) == encoders
    state = load_file(run / "checkpoints/last/training_state/tensors.safetensors")
    learning = [name for name in state if name.startswith("network/encoder.")]
    assert any(not torch.equal(state[name], state[name.replace("network/", "ema/")]) for name in learning)
    numbers, images = policy.config.observation_dims, policy.config.image_shapes
    observation = {key: torch.zeros(1, 2, dim) for key, dim in numbers.items()}
    observation |= {key: torch.zeros(1, 2, *shape, dtype=torch.uint8) for key, shape in images.items()}
    assert policy.sample(observation).isfinite().all()
    code, _, errors = run_command("eval_policy", f"checkpoint={run}", *SHORT)
    assert (code, errors.count("\n")) == (2, 1)
    assert "MUJOCO_GL=off forbids pictures" in errors
