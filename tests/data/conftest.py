"""Small replay buffers and robomimic data sets for the tests of what reads them."""

import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr


@pytest.fixture
def replay_arrays() -> dict[str, np.ndarray]:
    """Two episodes of 4 and 6 steps in Push-T's arrays; no value is 0, so a filled-in chunk shows."""
    steps = np.arange(1, 11, dtype=np.float32)[:, None]
    return {
        "data/action": steps * [10, 20],
        "data/state": steps * [1, 2, 3, 4, 0.5],
        "data/keypoint": (steps * np.arange(1, 19)).reshape(10, 9, 2),
        "meta/episode_ends": np.array([4, 10]),
    }


@pytest.fixture
def write_replay(tmp_path, replay_arrays) -> Callable[..., Path]:
    """Return a function that writes arrays as a replay buffer in chunks of 4 rows, as a folder or a zip file."""

    def write(
        arrays: Mapping[str, np.ndarray] | None = None,
        *,
        name: str = "replay.zarr",
        zarr_format: int = 2,
        zipped_as: str | None = None,
        **options,
    ) -> Path:
        folder = tmp_path / name
        group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
        for key, values in (replay_arrays if arrays is None else arrays).items():
            if values.dtype == np.float64:
                values = values.astype(np.float32)
            chunks = (max(min(4, len(values)), 1), *values.shape[1:]) if values.ndim else ()
            stored = group.create_array(key, shape=values.shape, chunks=chunks, dtype=values.dtype, **options)
            stored[...] = values
        return folder if zipped_as is None else zip_folder(folder, folder.with_suffix(".zip"), zipped_as)

    return write


def zip_folder(folder: Path, archive: Path, prefix: str = "") -> Path:
    """Zip a folder so that its files lie below `prefix` in the archive."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, str(Path(prefix) / path.relative_to(folder)))
    return archive


ENV_ARGS = {  # of the public data sets
    "env_name": "Lift",
    "type": 1,
    "env_kwargs": {"robots": ["Panda"], "controller_configs": {"type": "OSC_POSE", "control_delta": True}},
}


@pytest.fixture
def make_demo() -> Callable[..., dict[str, np.ndarray]]:
    """Return a function that makes the arrays of one demo in a public data set's layout; all values are random."""

    def make(length: int, layout: str = "v0.1", seed: int = 0) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([seed, length])
        demo = {
            "actions": rng.uniform(-1, 1, (length, 7)),
            "rewards": np.zeros(length),
            "dones": np.zeros(length, np.int64),
            "obs/robot0_eef_pos": rng.normal(size=(length, 3)),
            "obs/object": rng.normal(size=(length, 10)),
        }
        if layout == "v1.4.1":
            demo["states"] = rng.normal(size=(length, 32))
            demo["next_obs/robot0_eef_pos"] = np.roll(demo["obs/robot0_eef_pos"], -1, axis=0)
        if layout == "v1.5":
            demo["actions_abs"] = rng.normal(size=(length, 7))
            demo["action_dict/abs_pos"] = demo["actions_abs"][:, :3].astype(np.float32)
            demo["obs/agentview_image"] = rng.integers(0, 256, (length, 6, 5, 3), np.uint8)
            demo["obs/robot0_eye_in_hand_image"] = rng.integers(0, 256, (length, 4, 4, 3), np.uint8)
        return demo

    return make


@pytest.fixture
def write_robomimic(tmp_path) -> Callable[..., Path]:
    """Return a function that writes demos (name -> arrays) as a robomimic data set; what is None is left out."""

    def write(
        demos: Mapping[str, Mapping[str, np.ndarray]],
        *,
        name: str = "demos.hdf5",
        masks: Mapping[str, list[str]] | None = None,
        env_args: Mapping | str | None = ENV_ARGS,
        num_samples: bool = True,
        total: bool = True,
        **options,
    ) -> Path:
        path = tmp_path / name
        with h5py.File(path, "w") as file:
            data = file.create_group("data")
            for demo, arrays in demos.items():
                group = data.create_group(demo)
                for key, values in arrays.items():
                    group.create_dataset(key, data=values, **options)
                if num_samples:
                    group.attrs["num_samples"] = len(arrays["actions"])
                if "states" in arrays:
                    group.attrs["model_file"] = "<mujoco/>"
            if total:
                data.attrs["total"] = sum(len(arrays["actions"]) for arrays in demos.values())
            if env_args is not None:
                data.attrs["env_args"] = env_args if isinstance(env_args, str) else json.dumps(env_args)
            for key, names in (masks or {}).items():
                file[f"mask/{key}"] = names
        return path

    return write
