"""Demonstrations with the simulator's states: raw robosuite recordings, and robomimic data sets that kept them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from shortcut_policy.data.env_args import ROBOSUITE, EnvArgs, check_codec, read_env_args
from shortcut_policy.data.robomimic_hdf5 import RobomimicFile, open_robomimic


@dataclass(frozen=True)
class Recording:
    """What can be replayed.

    Attributes:
        path: the HDF5 file.
        env_args: of robosuite.
        steps: demo -> number of actions, in numeric order.
        masks: filter key -> demos.
    """

    path: Path
    env_args: EnvArgs
    steps: Mapping[str, int]
    masks: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, eq=False)
class RecordedDemo:
    """One demonstration: `states` (n, S) and `actions` (n, A) as recorded, float64; `model` is XML."""

    states: np.ndarray
    actions: np.ndarray
    model: str


def read_recording(path: str | Path) -> Recording:
    """Look whether all demos of a file can be replayed, as far as that needs no simulator.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        ValueError: it is no complete HDF5 file of this layout, not of robosuite, its actions are not deltas of
            OSC_POSE, or a demo lacks states, actions or the embedded model, or holds NaN.
    """
    env_args = read_env_args(path)
    if env_args is None:
        raise ValueError(f"{path} does not say its environment: the group data needs the attribute env_args")
    if env_args.type != ROBOSUITE:
        raise ValueError(
            f"{path} is of {env_args.env_name!r}, whose env_args have type {env_args.type}: "
            f"only robosuite's, {ROBOSUITE}, can be replayed"
        )
    steps = {}
    with open_robomimic(path) as file:
        for demo in file.demos():
            actions = _read_demo(file, demo).actions
            check_codec(env_args, "actions", "delta_pose", actions, f"{demo} of {path}")
            steps[demo] = len(actions)
        masks = {key: file.listed(key) for key in file.filter_keys()}
    return Recording(Path(path), env_args, steps, masks)


def read_demo(recording: Recording, demo: str) -> RecordedDemo:
    """Read one demonstration.

    Raises:
        ValueError: it cannot be replayed, or the file has been damaged since.
    """
    with open_robomimic(recording.path) as file:
        return _read_demo(file, demo)


def _read_demo(file: RobomimicFile, demo: str) -> RecordedDemo:
    where = f"{demo} of {file}"
    model = _model(file.array(demo, "actions").parent, where)
    states, actions = (_table(file.array(demo, name), f"{name} of {where}") for name in ("states", "actions"))
    if len(states) != len(actions):
        raise ValueError(f"{where} has {len(states)} states, but {len(actions)} actions: each action needs its state")
    return RecordedDemo(states, actions, model)


def _model(demo: h5py.Group, where: str) -> str:
    model = demo.attrs.get("model_file")
    if model is None:
        raise ValueError(f"{where} has no embedded model (attribute model_file): it cannot be replayed")
    text = model.decode() if isinstance(model, bytes) else str(model)
    if "<mujoco" not in text:
        quoted = repr(text if len(text) <= 60 else f"{text[:60]}...")
        raise ValueError(
            f"{where} has no embedded model, its model_file is {quoted}: "
            "it cannot be replayed without the XML that was simulated"
        )
    return text


def _table(array: h5py.Dataset, where: str) -> np.ndarray:
    if array.ndim != 2 or len(array) == 0:
        raise ValueError(f"{where} must be rows of numbers, not of shape {array.shape}")
    values = array[()].astype(np.float64)
    rows = np.isfinite(values).all(axis=1)
    if not rows.all():
        raise ValueError(f"{where} holds NaN or infinity at step {int(rows.argmin())}: repair or remove that demo")
    return values
