"""A public robomimic set, which lies on the web as one plain HDF5 file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py

from shortcut_policy.data.checksums import record_sha256, recorded_sha256
from shortcut_policy.data.download import Progress, fetch


@dataclass(frozen=True)
class PublicHDF5:
    """One file of human demonstrations of a robosuite task, in robomimic's layout.

    Attributes:
        task, source, kind, version: as on the command line; `kind` is "low_dim" (observations of every step) or "demo"
            (simulator states and the model, from which observations are made).
        env_name: robosuite's name of the task, which `env_args` must state.
        num_demos: how many demonstrations the file must hold.
        urls: addresses, tried in order.
        sha256, size: of the file, where they are published.
    """

    task: str
    source: str
    kind: str
    version: str
    env_name: str
    num_demos: int
    urls: tuple[str, ...]
    sha256: str | None = None
    size: int | None = None

    @property
    def path(self) -> str:
        """The file below a mirror."""
        return f"{self.task}/{self.source}/{self.kind}_{self.version}.hdf5"

    @property
    def place(self) -> str:
        """The file below the data folder."""
        return f"robomimic/{self.path}"

    def install(
        self,
        folder: Path,
        *,
        mirrors: Sequence[str] = (),
        progress: Progress | None = None,
        retries: int = 4,
        backoff_s: float = 1.0,
    ) -> Path:
        """Put the file below `folder`, downloading it unless it is there, and record its sha256 beside it.

        A file that is already there must have the published sha256 or, where none is published, the one recorded when
        it was downloaded; either way its content is checked. It is never overwritten.

        Args:
            folder: the data folder, made where needed.
            mirrors: addresses to try before the public ones.
            progress: as in `fetch`, also retries and backoff_s.

        Returns:
            The file.

        Raises:
            ConnectionError, ValueError, FileExistsError: as `fetch`; ValueError also when the record is unreadable.
        """
        target = folder / self.place
        had_target = target.exists()
        fetch(
            [*mirrors, *self.urls],
            target,
            sha256=self.sha256 or (recorded_sha256(target) if had_target else None),
            size=self.size,
            check=self.check,
            progress=progress,
            retries=retries,
            backoff_s=backoff_s,
        )
        if not had_target:
            record_sha256(target)
        return target

    def check(self, path: Path) -> None:
        """Raise ValueError unless the file holds all demonstrations of this set, each of them complete.

        That is what can be said without a checksum: the right environment, the right number of demonstrations, as many
        rows of actions and of observations (or states) as each one and the whole file declare.
        """
        try:
            with h5py.File(path, "r") as file:
                self._check_demos(file.get("data"))
        except (OSError, RuntimeError, KeyError, TypeError) as error:  # what h5py raises for a damaged file
            with path.open("rb") as file:
                start = file.read(16)
            raise ValueError(f"it is no whole HDF5 file, it begins with {start!r} ({error})") from error

    def _check_demos(self, data: object) -> None:
        if not isinstance(data, h5py.Group):
            raise ValueError("it has no group 'data'")
        if (found := _env_name(data)) != self.env_name:
            raise ValueError(f"its demonstrations are of {found!r} instead of {self.env_name!r}")
        if len(data) != self.num_demos:
            raise ValueError(f"it holds {len(data)} demonstrations instead of {self.num_demos}")
        steps = sum(self._check_demo(data, name) for name in data)
        if int(data.attrs.get("total", steps)) != steps:
            raise ValueError(f"it declares {data.attrs['total']} steps in all but holds {steps}")

    def _check_demo(self, data: h5py.Group, name: str) -> int:
        """Refuse a demonstration that is not complete, and return its number of steps."""
        demo = data.get(name)
        actions = demo.get("actions") if isinstance(demo, h5py.Group) else None
        if not isinstance(actions, h5py.Dataset) or actions.ndim != 2 or not len(actions):
            raise ValueError(f"{name!r} in it has no actions")
        arrays = {"states": demo.get("states")}
        if self.kind == "low_dim":
            arrays = dict(demo["obs"].items()) if isinstance(demo.get("obs"), h5py.Group) else {}
        elif "model_file" not in demo.attrs:
            raise ValueError(f"{name!r} in it has no model_file")
        rows = {key: len(array) if isinstance(array, h5py.Dataset) else 0 for key, array in arrays.items()}
        rows = (rows or {"obs": 0}) | {"num_samples": int(demo.attrs.get("num_samples", 0))}
        if wrong := {key: number for key, number in rows.items() if number != len(actions)}:
            raise ValueError(f"{name!r} in it is not complete: {len(actions)} rows of actions, but {wrong}")
        return len(actions)


def _env_name(data: h5py.Group) -> object:
    try:
        return json.loads(data.attrs["env_args"])["env_name"]
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError("its env_args do not state an env_name") from error
