"""Writes robomimic data sets, in the layout of its version 0.3 and data of v1.5, demo by demo.

A file that is killed while HDF5 writes to it is lost as a whole. So every demo becomes a file of its own:

    lift.hdf5.parts/settings.json     what the demos depend on: other settings do not go on here
    lift.hdf5.parts/demo_1.hdf5       complete from the moment it has this name
    lift.hdf5                         all of them, once they are there; the folder goes
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np

_SETTINGS = "settings.json"


@dataclass(frozen=True, eq=False)
class Demo:
    """A demonstration of n steps.

    Attributes:
        actions: (n, A).
        observations: key -> (n, ...), float32 or for images (n, H, W, C) uint8.
        rewards: (n,), of what each action led to.
        dones: (n,) 0 or 1, whether the episode may end there.
        states: (n, S) float64 of the simulator before each action, None if there are none.
        model: XML that the states belong to, None if there is none.
        arrays: further ones, name -> (n, ...), such as `actions_abs`.
        next_observations: as `observations`, one step later; empty for none, as imitation needs none.
        attributes: of the demo besides `num_samples` and `model_file`.

    Raises:
        ValueError: there are no steps, arrays are not of n rows, or a value is not finite.
    """

    actions: np.ndarray
    observations: Mapping[str, np.ndarray]
    rewards: np.ndarray
    dones: np.ndarray
    states: np.ndarray | None = None
    model: str | None = None
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    next_observations: Mapping[str, np.ndarray] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps = len(self.actions)
        if steps == 0:
            raise ValueError("a demo needs at least one step")
        for name, values in self.datasets().items():
            if len(values) != steps:
                raise ValueError(f"{name} has {len(values)} rows, but there are {steps} actions")
            if values.dtype != np.uint8 and not np.isfinite(values).all():
                raise ValueError(f"{name} holds NaN or infinity: repair or leave out this demo")

    def datasets(self) -> dict[str, np.ndarray]:
        """Name every array as it is called in the demo's group."""
        states = {} if self.states is None else {"states": self.states}
        return {
            "actions": self.actions,
            **self.arrays,
            **states,
            "rewards": np.asarray(self.rewards, np.float64),
            "dones": np.asarray(self.dones, np.int64),
            **{f"obs/{key}": values for key, values in self.observations.items()},
            **{f"next_obs/{key}": values for key, values in self.next_observations.items()},
        }


class RobomimicWriter:
    """One data set in the making; the same settings go on after an interruption.

    Nothing is written before the first demo.
    """

    def __init__(self, output: str | Path, settings: Mapping[str, Any]) -> None:
        """Begin the data set, or go on with it.

        Args:
            output: the HDF5 file to be.
            settings: all that the demos depend on, as JSON knows it.

        Raises:
            FileExistsError: `output` exists, or is begun with other settings.
        """
        self.output = Path(output)
        self.parts = self.output.with_name(f"{self.output.name}.parts")
        self._settings = json.loads(json.dumps(settings))
        if self.output.exists():
            raise FileExistsError(f"{self.output} exists: choose another output=, or remove it")
        if not self.parts.exists():
            return
        record = self.parts / _SETTINGS
        if record.exists():
            there = json.loads(record.read_text())
            for key in there.keys() | self._settings.keys():
                if there.get(key) != self._settings.get(key):
                    raise FileExistsError(
                        f"{self.output} is begun with other settings ({key} is {there.get(key)!r} there and "
                        f"{self._settings.get(key)!r} here): choose another output=, or remove {self.parts}"
                    )
        elif any(not path.name.startswith(".") for path in self.parts.iterdir()):
            raise FileExistsError(f"{self.parts} holds files that are not ours: choose another output=")

    def finished(self) -> frozenset[str]:
        """Return the names of the demos that are written."""
        return frozenset(path.stem for path in self.parts.glob("[!.]*.hdf5"))

    def add(self, name: str, demo: Demo) -> None:
        """Write a demo; from the return on, it survives whatever happens to this process."""
        self.parts.mkdir(parents=True, exist_ok=True)
        if not (self.parts / _SETTINGS).exists():
            text = json.dumps(self._settings, indent=2) + "\n"
            _write_whole(self.parts / _SETTINGS, lambda path: path.write_text(text))
        _write_whole(self._part(name), lambda path: _write_demo(path, name, demo))

    def attributes(self, name: str) -> dict[str, Any]:
        """Read the attributes of a demo that is written."""
        with self._open_part(name) as file:
            return dict(file[name].attrs)

    def assemble(
        self,
        demos: Sequence[str],
        env_args: Mapping[str, Any],
        masks: Mapping[str, Sequence[str]],
        attributes: Mapping[str, Any],
    ) -> None:
        """Make one file of written demos and remove the parts.

        Args:
            demos: which, at least one.
            env_args: `env_name`, `type`, `env_kwargs` and `env_version`, for whoever rolls a policy out.
            masks: filter key -> demos.
            attributes: of the group `data`, besides `total` and `env_args`.

        Raises:
            FileExistsError: the file has come to exist meanwhile.
            ValueError: a part is damaged.
        """

        def write(path: Path) -> None:
            with h5py.File(path, "w") as file:
                data = file.create_group("data")
                for name in demos:
                    with self._open_part(name) as part:
                        part.copy(part[name], data, name)
                data.attrs["total"] = sum(int(group.attrs["num_samples"]) for group in data.values())
                data.attrs["env_args"] = json.dumps(env_args, indent=4)
                data.attrs.update(attributes)
                for key, names in masks.items():
                    file[f"mask/{key}"] = np.array(names, dtype="S")

        whole = self.parts / ".whole"
        _write_whole(whole, write)
        if self.output.exists():
            raise FileExistsError(f"{self.output} has come to exist: move it, and the same command will finish")
        whole.rename(self.output)
        self.discard()

    def discard(self) -> None:
        """Remove the parts."""
        shutil.rmtree(self.parts, ignore_errors=True)

    def _part(self, name: str) -> Path:
        return self.parts / f"{name}.hdf5"

    def _open_part(self, name: str) -> h5py.File:
        try:
            return h5py.File(self._part(name), "r")
        except OSError as error:
            raise ValueError(f"{self._part(name)} is damaged ({error}): remove it and run the same command") from error


def split_masks(demos: Sequence[str], valid_fraction: float, seed: int) -> dict[str, tuple[str, ...]]:
    """Split demos into the filter keys `train` and `valid`, each in the order given.

    Args:
        demos: their names.
        valid_fraction: share of the demos held out, in [0, 1), rounded but leaving at least one on either side; for
            0, or with fewer than two demos, there are no filter keys.
        seed: of the permutation that chooses them.

    Raises:
        ValueError: the fraction is outside [0, 1).
    """
    if not 0 <= valid_fraction < 1:
        raise ValueError(f"valid_fraction must lie in [0, 1), not {valid_fraction}")
    if valid_fraction == 0 or len(demos) < 2:
        return {}
    num_valid = min(max(round(valid_fraction * len(demos)), 1), len(demos) - 1)
    order = np.random.default_rng(seed).permutation(len(demos))
    return {
        "train": tuple(demos[i] for i in sorted(order[num_valid:])),
        "valid": tuple(demos[i] for i in sorted(order[:num_valid])),
    }


def _write_demo(path: Path, name: str, demo: Demo) -> None:
    with h5py.File(path, "w") as file:
        group = file.create_group(name)
        for array, values in demo.datasets().items():
            # a frame for each chunk: windows are read from anywhere
            images = {"chunks": (1, *values.shape[1:]), "compression": "gzip"} if values.dtype == np.uint8 else {}
            group.create_dataset(array, data=values, **images)
        group.attrs["num_samples"] = len(demo.actions)
        if demo.model is not None:
            group.attrs["model_file"] = demo.model
        group.attrs.update(demo.attributes)


def _write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write under a temporary name and rename, so that a power cut leaves all or nothing under `path`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    write(temporary)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    temporary.rename(path)
