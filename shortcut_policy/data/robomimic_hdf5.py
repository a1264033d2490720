"""robomimic's HDF5 layout: `data/<demo>/actions` (n, A), `data/<demo>/obs/<key>` (n, ...), filter keys in `mask/`.

Nothing else need be there: `num_samples` is compared where it stands, and `next_obs`, `rewards`, `dones`, `states`,
`total` and `env_args` are not looked at. HDF5 reports damage as several kinds of exception; here all are ValueErrors.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from shortcut_policy.data.array_source import ArraySource, extract
from shortcut_policy.data.episodes import IMAGE_CHANNELS, Episodes

_ACTIONS = ArraySource("actions")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def read_robomimic(
    path: str | Path,
    observations: Mapping[str, ArraySource],
    action: ArraySource = _ACTIONS,
    *,
    filter_key: str | None = None,
) -> Episodes:
    """Read demonstrations into RAM; arrays that are not asked for are not touched.

    Args:
        path: an HDF5 file in robomimic's layout.
        observations: key -> where in a demo's `obs/` its values lie, or in the demo itself for a name that begins with
            "/". Numbers become (N, D) float32; images are uint8 (N, H, W, C) and stay so.
        action: where in a demo the actions lie.
        filter_key: read only the demos that `mask/<filter_key>` lists.

    Returns:
        The episodes in the order of the demos' numbers (demo_2 before demo_10), with the demos' names.

    Raises:
        FileNotFoundError: when there is nothing at `path`.
        ValueError: when it is no complete HDF5 file of this layout, the filter key or an array is missing, arrays do
            not agree in rows or width, images are not uint8 (n, H, W, C), or a value is not finite.
    """
    with open_robomimic(path) as file:
        demos = file.demos(filter_key)
        action = action.named("actions")
        name = action.array.removeprefix("/")
        lengths = [file.num_steps(demo, name) for demo in demos]
        actions = file.stack(demos, lengths, name).read(action)
        values = {}
        for key, source in observations.items():
            source = source.named(key)
            values[key] = file.stack(demos, lengths, observation_array(source)).read(source)
    return Episodes(values, actions, np.cumsum(lengths, dtype=np.int64), source=str(path), names=demos)


def observation_array(source: ArraySource) -> str:
    """Return the path of an observation's array below its demo's group."""
    return source.array[1:] if source.array.startswith("/") else f"obs/{source.array}"


@dataclass(frozen=True)
class StackedArray:
    """The same array of several demos, one after the other; rows, type and width have been verified.

    Attributes:
        name: below the demo's group.
        datasets: one for each demo, (n, ...).
        is_image: whether they are uint8 (n, H, W, C).
    """

    name: str
    datasets: tuple[h5py.Dataset, ...]
    is_image: bool

    def read(self, source: ArraySource) -> np.ndarray:
        """Read all rows: (N, D) float32, or for images (N, H, W, C) uint8."""
        if not self.is_image:
            return np.concatenate([_extract_low_dim(dataset, source) for dataset in self.datasets])
        self.check_source(source)
        ends = np.cumsum([len(dataset) for dataset in self.datasets])
        images = np.empty((ends[-1], *self.datasets[0].shape[1:]), np.uint8)
        for dataset, end in zip(self.datasets, ends, strict=True):
            dataset.read_direct(images, dest_sel=np.s_[end - len(dataset) : end])
        return images

    def check_source(self, source: ArraySource) -> None:
        """Raise ValueError when a part of images is asked for."""
        if self.is_image and (source.columns is not None or source.transform != "none"):
            raise ValueError(f"{self.name} holds images, which take neither columns nor a transform")


def _extract_low_dim(dataset: h5py.Dataset, source: ArraySource) -> np.ndarray:
    values = dataset[()]
    try:
        return extract(values[:, None] if values.ndim == 1 else values, source)
    except ValueError as error:
        raise ValueError(f"{error} (in {dataset.name} of {dataset.file.filename})") from None


class RobomimicFile:
    """A data set opened for reading; `open_robomimic` makes it.

    Attributes:
        attributes: of the group `data`.
    """

    def __init__(self, file: h5py.File):
        self._file = file
        data = file.get("data")
        if not isinstance(data, h5py.Group):
            held = ", ".join(file) or "nothing"
            raise ValueError(f"{self} is no robomimic data set: it has no group data but holds {held}")
        self._data = data
        self.attributes: Mapping[str, object] = data.attrs

    def __str__(self) -> str:
        return self._file.filename

    def demos(self, filter_key: str | None = None) -> tuple[str, ...]:
        """Return the names of all demos, or of those under a filter key, in numeric order."""
        present = [name for name in self._data if self._data.get(name, getclass=True) is h5py.Group]
        if not present:
            raise ValueError(f"{self} holds no demos")
        if filter_key is None:
            return tuple(sorted(present, key=_numeric_order))
        listed = self.listed(filter_key)
        if not listed:
            raise ValueError(f"filter key {filter_key!r} of {self} lists no demos")
        absent = sorted(set(listed) - set(present), key=_numeric_order)
        if absent:
            raise ValueError(f"filter key {filter_key!r} lists {absent[0]}, but {self} has no such demo")
        return tuple(sorted(set(listed), key=_numeric_order))

    def filter_keys(self) -> tuple[str, ...]:
        """Return the filter keys present, sorted."""
        mask = self._file.get("mask")
        return tuple(sorted(mask)) if isinstance(mask, h5py.Group) else ()

    def listed(self, filter_key: str) -> tuple[str, ...]:
        """Return the names that a filter key lists, as they stand there."""
        if filter_key not in self.filter_keys():
            present = ", ".join(self.filter_keys()) or "no filter keys"
            raise ValueError(f"{self} has no filter key {filter_key!r}: it has {present}")
        names = np.ravel(self._file["mask"][filter_key][()])
        return tuple(name.decode() if isinstance(name, bytes) else str(name) for name in names)

    def arrays(self, demo: str) -> tuple[str, ...]:
        """Return the paths of all arrays below a demo, sorted."""
        names: list[str] = []
        self._data[demo].visititems(lambda name, found: names.append(name) if isinstance(found, h5py.Dataset) else None)
        return tuple(sorted(names))

    def array(self, demo: str, name: str) -> h5py.Dataset:
        """Open a numeric array (n, ...) of a demo without reading it; ValueError when there is none."""
        array = self._data[demo].get(name) if name else None
        if not isinstance(array, h5py.Dataset):
            raise ValueError(self._absence(demo, name))
        if array.dtype.kind not in "biuf" or array.ndim == 0:
            raise ValueError(f"{name} of {demo} in {self} holds no rows of numbers but {array.dtype} {array.shape}")
        return array

    def _absence(self, demo: str, name: str) -> str:
        arrays = self.arrays(demo)
        held = ", ".join(other for other in arrays if not other.startswith("next_obs/")) or "no arrays"
        message = f"{demo} of {self} has no {name}: it holds {held}"
        if "env_info" in self.attributes and not any(other.startswith("obs/") for other in arrays):
            return (
                f"{message}; this is a raw robosuite recording, which "
                f"`python scripts/convert_demos.py input={self} output=NEW.hdf5` turns into a robomimic data set"
            )
        return message

    def declared_steps(self, demo: str) -> int | None:
        """Return the attribute `num_samples` of a demo, None where there is none."""
        declared = self._data[demo].attrs.get("num_samples")
        return None if declared is None else int(np.asarray(declared).item())

    def num_steps(self, demo: str, action: str) -> int:
        """Return the number of actions of a demo; ValueError when it is 0 or not what `num_samples` says."""
        steps = len(self.array(demo, action))
        if steps == 0:
            raise ValueError(f"{demo} of {self} has no steps: remove it, or leave it out by a filter key")
        declared = self.declared_steps(demo)
        if declared not in (None, steps):
            raise ValueError(f"{demo} of {self} has num_samples {declared}, but {steps} {action}: make them agree")
        return steps

    def stack(self, demos: Sequence[str], lengths: Sequence[int], name: str) -> StackedArray:
        """Open an array in all of the demos, which have the given lengths; ValueError where one does not fit."""
        datasets = tuple(self.array(demo, name) for demo in demos)
        first = datasets[0]
        is_image = check_layout(first, f"{name} of {demos[0]} in {self}")
        for demo, dataset, steps in zip(demos, datasets, lengths, strict=True):
            label = f"{name} of {demo} in {self}"
            if len(dataset) != steps:
                raise ValueError(f"{label} has {len(dataset)} rows, but the demo has {steps} steps")
            if check_layout(dataset, label) != is_image or dataset.shape[1:] != first.shape[1:]:
                raise ValueError(
                    f"{label} holds {describe(dataset)}, but that of {demos[0]} {describe(first)}: all demos must agree"
                )
        return StackedArray(name, datasets, is_image)


def check_layout(array: h5py.Dataset, label: str) -> bool:
    """Say whether an array (n, ...) holds images; ValueError when it is neither images nor low-dimensional."""
    shape = array.shape
    if array.ndim <= 2 or (array.ndim == 3 and array.dtype != np.uint8):
        return False
    if array.ndim == 4 and shape[3] not in IMAGE_CHANNELS and shape[1] in IMAGE_CHANNELS:
        advice = "move the channels to the last axis"
    elif array.ndim == 4 and array.dtype != np.uint8:
        advice = "scale them to 0 ... 255, round, and store them as uint8"
    elif array.ndim == 3:
        advice = "give them an axis of channels"
    elif array.ndim == 4 and shape[3] in IMAGE_CHANNELS:
        return True
    else:
        raise ValueError(f"{label} holds {describe(array)}, neither numbers (n, D) nor images (n, H, W, C)")
    raise ValueError(f"{label} holds {describe(array)}, but images are uint8 (n, H, W, C): {advice}")


def describe(array: h5py.Dataset) -> str:
    """Return the type and the shape of a row, such as `float32 (n, 7)`."""
    return f"{array.dtype} ({', '.join(['n', *map(str, array.shape[1:])])})"


@contextmanager
def open_robomimic(path: str | Path) -> Iterator[RobomimicFile]:
    """Open a data set; damage found while it is open is a ValueError.

    Raises:
        FileNotFoundError: when there is nothing at `path`.
        ValueError: when it is no HDF5 file of robomimic's layout, incomplete, or being written.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give the HDF5 file of a robomimic data set")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give the HDF5 file of a robomimic data set")
    try:
        with h5py.File(path, "r") as file:
            yield RobomimicFile(file)
    except PermissionError:
        raise
    except BlockingIOError as error:
        raise ValueError(f"{path} is being written by another process: wait until that has ended") from error
    except (OSError, RuntimeError, KeyError) as error:
        with path.open("rb") as content:
            state = "truncated or damaged" if content.read(8) == _SIGNATURE else "no HDF5 file"
        raise ValueError(f"{path} is {state}: copy or download it again ({error})") from error


def _numeric_order(demo: str) -> tuple[str, int]:
    """demo_2 comes before demo_10."""
    digits = re.search(r"\d*$", demo).group()
    return demo.removesuffix(digits), int(digits or -1)
