"""Diffusion Policy's replay buffers: zarr stores that hold `data/<array>` (N, ...) and `meta/episode_ends` (E,).

Zarr fills a missing chunk with the fill value and may decode a truncated one to garbage, both without a word, so
every chunk is looked at before its values are trusted.
"""

import itertools
import math
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal

import numpy as np
import zarr
from zarr.abc.store import Store
from zarr.storage import LocalStore, ZipStore

from shortcut_policy.data.array_source import ArraySource, extract
from shortcut_policy.data.episodes import IMAGE_CHANNELS, Episodes, check_episode_ends

EPISODE_ENDS = "meta/episode_ends"
_ACTION = ArraySource("action")
_SEARCH_DEPTH = 2  # pusht.zip -> pusht/pusht_cchi_v7_replay.zarr


def read_zarr(path: str | Path, observations: Mapping[str, ArraySource], action: ArraySource = _ACTION) -> Episodes:
    """Read demonstrations from a replay buffer into RAM; arrays that are not asked for are not touched.

    Args:
        path: a directory or a .zip file, zarr format 2 or 3; the store may lie up to two folders below it.
        observations: key -> where below data/ its values lie; each becomes (N, D) float32. Arrays (N, H, W, C) are
            images, whole numbers in 0 ... 255 of whatever type, and become uint8.
        action: where below data/ the actions lie.

    Returns:
        The episodes; rows beyond the last episode end (over-allocated buffers) are cut off.

    Raises:
        FileNotFoundError: when there is nothing at `path`.
        ValueError: when it is no replay buffer, an array is missing, damaged, too short or of the wrong rank, columns
            are out of range, episode ends do not rise, a value is not finite, or an image is none.
    """
    observations = {key: source.named(key) for key, source in observations.items()}
    action = action.named("action")
    with open_replay(path) as store:
        ends = store.episode_ends()
        names = dict.fromkeys(source.array for source in (action, *observations.values()))
        arrays = {name: _read(store, name, int(ends[-1])) for name in names}
    try:
        values = {key: _extract(arrays[source.array], source) for key, source in observations.items()}
        if arrays[action.array].ndim == 4:
            raise ValueError(f"{action.array} holds images, which are no actions")
        actions = extract(arrays[action.array], action)
    except ValueError as error:
        raise ValueError(f"{error} (in {path})") from None
    return Episodes(observations=values, actions=actions, episode_ends=ends, source=str(path))


def _read(store: "ReplayStore", array: str, rows: int) -> np.ndarray:
    name = f"data/{array}"
    opened = store.array(name)
    problem = layout_problem(opened.shape, opened.dtype)
    if problem is not None:
        raise ValueError(f"{name} of {store} {problem}")
    return _read_images(store, name, rows) if opened.ndim == 4 else store.read(name, rows)


def _read_images(store: "ReplayStore", name: str, rows: int) -> np.ndarray:
    """(N, H, W, C) uint8, chunk by chunk: stored as float32, as Diffusion Policy's, all would take 4 times as much."""
    array = store.array(name)
    store.check(array, name, rows)
    images = np.empty((rows, *array.shape[1:]), np.uint8)
    maximum = 0.0
    for chunk in store.chunks(array, rows):
        values = store.read_chunk(array, name, chunk)
        if array.dtype != np.uint8:
            maximum = max(maximum, float(values.max()))
            if problem := image_problem(values):
                raise ValueError(f"{name} of {store} {problem}")
        images[chunk.region] = values.astype(np.uint8)
    if problem := image_range_problem(array.dtype, maximum):
        raise ValueError(f"{name} of {store} {problem}")
    return images


def layout_problem(shape: tuple[int, ...], dtype: np.dtype) -> str | None:
    """Why an array can be no observation, as the end of a sentence that begins with its name; None where it can."""
    if len(shape) not in (2, 3, 4):
        return f"has shape {shape}: low-dim arrays are (N, K) or (N, M, K), images (N, H, W, C)"
    if len(shape) == 3 and dtype == np.uint8:
        return f"holds uint8 {shape}: give gray images an axis of channels"
    if len(shape) < 4 or (shape[3] in IMAGE_CHANNELS and min(shape[1:]) > 0):
        return None
    advice = "move the channels to the last axis" if shape[1] in IMAGE_CHANNELS else "with C of 1, 3 or 4"
    return f"has shape {shape}, but images are (N, H, W, C): {advice}"


def image_problem(values: np.ndarray) -> str | None:
    """What is wrong with the values of images, of whatever type: they must be whole numbers in 0 ... 255."""
    if not np.isfinite(values).all():
        return f"holds {values[~np.isfinite(values)][0]}, but images are whole numbers in 0 ... 255"
    low, high = values.min(), values.max()
    with np.errstate(invalid="ignore"):  # of what lies far outside
        wrong = values[values.astype(np.uint8) != values]
    if not wrong.size:
        return None
    advice = "scale them to that and round" if low < 0 or high > 255 else "round them"
    if low >= 0 and high <= 1:
        advice = "multiply them by 255 and round"
    return f"holds {wrong[0]}, but images are whole numbers in 0 ... 255: {advice}"


def image_range_problem(dtype: np.dtype, maximum: float) -> str | None:
    """What is wrong with images of nothing but 0 and 1 that are no bytes: as these they would be nearly black."""
    if dtype.kind not in "fb" or maximum != 1:
        return None
    return f"holds nothing but 0 and 1 as {dtype}, but images are whole numbers in 0 ... 255: multiply them by 255"


def _extract(values: np.ndarray, source: ArraySource) -> np.ndarray:
    if values.ndim != 4:
        return extract(values, source)
    if source.columns is not None or source.transform != "none":
        raise ValueError(f"{source.array} holds images, which take neither columns nor a transform")
    return values


@dataclass(frozen=True)
class Chunk:
    """One stored file of an array (a shard where the array has shards)."""

    key: str  # file name below the array
    region: tuple[slice, ...]  # the part of the array that it holds


class ReplayStore:
    """A replay buffer opened for reading; `open_replay` makes it."""

    def __init__(self, root: Traversable, store: Store, prefix: str):
        self._root = root  # folder that holds data/ and meta/, in the file system or in the zip file
        self._store = store
        self.prefix = prefix  # of the names in `store`: "", or in a zip file the folder with its slash

    def __str__(self) -> str:
        return str(self._root).rstrip("/")

    def names(self) -> tuple[str, ...]:
        """Return the arrays present below data/, sorted, as `data/<array>`."""
        folder = self._root / "data"
        children = folder.iterdir() if folder.is_dir() else ()
        return tuple(sorted(f"data/{child.name}" for child in children if _is_array(child)))

    def array(self, name: str) -> zarr.Array:
        """Open a numeric array without reading it; ValueError when it is absent, not numeric or not understood."""
        if not _is_array(self._root / name):
            present = ", ".join(self.names()) or "no arrays"
            raise ValueError(f"{self} has no array {name}: it holds {present}")
        try:
            array = zarr.open_array(self._store, path=f"{self.prefix}{name}", mode="r")
        except Exception as error:  # zarr raises many kinds: JSON, codecs, types, zip members
            raise ValueError(f"{name} of {self} cannot be opened ({error})") from error
        if array.dtype.kind not in "biuf":
            raise ValueError(f"{name} of {self} is not numeric but {array.dtype}")
        return array

    def chunks(self, array: zarr.Array, rows: int | None = None) -> Iterator[Chunk]:
        """Yield the chunks that hold the first `rows` rows (default: all) of an array with at least one axis."""
        shape = (array.shape[0] if rows is None else rows, *array.shape[1:])
        sizes = array.shards or array.chunks
        grid = (range(math.ceil(length / size)) for length, size in zip(shape, sizes, strict=True))
        for coordinates in itertools.product(*grid):
            region = tuple(
                slice(i * size, min((i + 1) * size, length))
                for i, size, length in zip(coordinates, sizes, shape, strict=True)
            )
            yield Chunk(array.metadata.encode_chunk_key(coordinates), region)

    def damage(
        self, array: zarr.Array, name: str, chunk: Chunk
    ) -> Literal["missing", "truncated", "unreadable"] | None:
        """Say what is wrong with the stored file of a chunk, as far as can be seen without decoding it."""
        file = self._root / name / chunk.key
        if not file.is_file():
            return "missing"
        if not _ends_in_blosc(array):
            return None
        try:
            content = file.read_bytes()
        except Exception:  # a damaged zip member has several ways to fail
            return "unreadable"
        # Blosc decodes a truncated buffer without complaint; bytes 12-15 of its header hold the whole length.
        whole = len(content) >= 16 and int.from_bytes(content[12:16], "little") == len(content)
        return None if whole else "truncated"

    def read(self, name: str, rows: int | None = None) -> np.ndarray:
        """Read the first `rows` rows (default: all) of an array; ValueError when a chunk is missing or damaged."""
        array = self.array(name)
        self.check(array, name, rows)
        try:
            return array[:rows]
        except Exception:
            for chunk in self.chunks(array, rows):  # find the one to name
                self.read_chunk(array, name, chunk)
            raise

    def check(self, array: zarr.Array, name: str, rows: int | None = None) -> None:
        """Raise ValueError where the first `rows` rows (default: all) are incomplete, or a chunk looks damaged."""
        if array.ndim == 0:
            raise ValueError(f"{name} of {self} is a single number: rows are needed")
        if rows is not None and array.shape[0] < rows:
            raise ValueError(
                f"{name} of {self} has {array.shape[0]} rows, but the last episode ends at {rows}: "
                f"the store is incomplete"
            )
        for chunk in self.chunks(array, rows):
            if damage := self.damage(array, name, chunk):
                # Zarr 3 leaves out chunks of nothing but the fill value unless told not to.
                hint = ', or write it with config={"write_empty_chunks": True}' if damage == "missing" else ""
                raise ValueError(f"chunk {chunk.key} of {name} is {damage} in {self}: copy the store again{hint}")

    def read_chunk(self, array: zarr.Array, name: str, chunk: Chunk) -> np.ndarray:
        """Decode one chunk; ValueError when that fails."""
        try:
            return array[chunk.region]
        except Exception as error:  # every codec has errors of its own
            raise ValueError(
                f"chunk {chunk.key} of {name} cannot be decoded in {self} ({error}): copy the store again"
            ) from error

    def episode_ends(self) -> np.ndarray:
        """Read the (E,) int64 episode ends; ValueError when they do not rise strictly."""
        ends = self.read(EPISODE_ENDS)
        try:
            check_episode_ends(ends)
        except ValueError as error:
            raise ValueError(f"{error} (in {self})") from None
        return ends.astype(np.int64)


@contextmanager
def open_replay(path: str | Path) -> Iterator[ReplayStore]:
    """Open the one replay buffer at `path` (a directory or .zip file) or up to two folders below it.

    Raises:
        FileNotFoundError: when there is nothing at `path`.
        ValueError: when there is no replay buffer, or more than one.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give the directory or .zip file of a zarr replay buffer")
    if path.is_dir():
        root = _find_store(path, path)
        yield ReplayStore(root, LocalStore(root, read_only=True), "")
        return
    with _open_zip(path) as archive:
        root = _find_store(zipfile.Path(archive), path)
        store = ZipStore(path, mode="r")
        try:
            yield ReplayStore(root, store, root.at)
        finally:
            with suppress(AttributeError):  # zarr 3.1 raises it where nothing has been read yet
                store.close()


def _open_zip(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(
            f"{path} is no zarr store: neither a directory nor a complete zip file (a broken download?)"
        ) from error


def _find_store(folder: Traversable, path: Path) -> Traversable:
    found = list(_stores_below(folder, _SEARCH_DEPTH))
    if not found:
        raise ValueError(f"{path} is no replay buffer: there is no {EPISODE_ENDS} in it or up to two folders down")
    if len(found) > 1:
        raise ValueError(f"{path} holds {len(found)} replay buffers, name one: {', '.join(map(str, found))}")
    return found[0]


def _stores_below(folder: Traversable, depth: int) -> Iterator[Traversable]:
    if _is_array(folder / EPISODE_ENDS):
        yield folder
    elif depth > 0:
        for child in sorted(folder.iterdir(), key=lambda child: child.name):
            if child.is_dir() and not child.name.startswith("."):  # half-unpacked downloads are hidden
                yield from _stores_below(child, depth - 1)


def _is_array(folder: Traversable) -> bool:
    return (folder / ".zarray").is_file() or (folder / "zarr.json").is_file()


def _ends_in_blosc(array: zarr.Array) -> bool:
    """Say whether each stored file is one Blosc buffer (numcodecs' class in format 2, zarr's in format 3)."""
    if array.shards or not array.compressors:
        return False
    return type(array.compressors[-1]).__name__ in ("Blosc", "BloscCodec")
