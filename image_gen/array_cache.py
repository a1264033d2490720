"""Arrays that are computed once, block by block, and then lie on disk to be mapped into memory."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm


def cached_rows(
    folder: Path,
    identity: Mapping[str, Any],
    shape: tuple[int, ...],
    dtype: np.dtype[Any] | str,
    compute: Callable[[int, int], np.ndarray],
    *,
    block: int,
    title: str,
    progress: bool = True,
) -> np.ndarray:
    """The array (N, ...) that belongs to `identity`, mapped read-only; what is missing of it is computed first.

    An interrupted computation goes on with the first block that is missing. Of several processes that miss rows one
    computes, and the others wait for it: a lock on a file beside the array, which stays there, decides.

    Args:
        folder: for the files; those of another identity have another name.
        identity: JSON values on which the array depends.
        shape, dtype: of the array.
        compute: (start, stop) -> the rows in between.
        block: rows that are computed at once.
        title: of the progress bar.
        progress: whether it is shown, and that another process is waited for.

    Raises:
        ValueError: the files there are damaged.
        OSError: the file system of the folder has no locks.
    """
    text = json.dumps({**identity, "shape": list(shape), "dtype": str(np.dtype(dtype))}, sort_keys=True)
    path = folder / f"{title}_{hashlib.sha256(text.encode()).hexdigest()[:16]}.npy"
    state = path.with_suffix(".json")
    folder.mkdir(parents=True, exist_ok=True)
    if _finished_rows(path, state) < shape[0]:
        with _locked(path.with_suffix(".lock"), announced=progress):
            done = _finished_rows(path, state)  # again: whoever held the lock may have computed them
            if done < shape[0]:
                array = _open(path, state, done, shape, dtype)
                shown = {"desc": title, "disable": not progress, "mininterval": 1.0}
                with tqdm(total=shape[0], initial=done, unit="image", **shown) as bar:
                    for start in range(done, shape[0], block):
                        stop = min(start + block, shape[0])
                        array[start:stop] = compute(start, stop)
                        array.flush()
                        _write(state, {"rows": stop, "identity": json.loads(text)})
                        bar.update(stop - start)
                del array
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


def _finished_rows(path: Path, state: Path) -> int:
    # the array first: `_open` makes it after an old state is gone, so a process that sees it sees no such state
    if not (path.exists() and state.exists()):
        return 0
    try:
        return int(json.loads(state.read_text())["rows"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{state} is damaged ({error}): delete it, and {path.name} is computed again") from error


def _open(path: Path, state: Path, done: int, shape: tuple[int, ...], dtype: np.dtype[Any] | str) -> np.memmap:
    """The array to be written: a new one where no row is finished."""
    if not done:
        # of an array that was deleted: its rows would count as finished in the new one
        state.unlink(missing_ok=True)
    array: np.memmap = np.lib.format.open_memmap(
        path, mode="r+" if done else "w+", dtype=dtype, shape=None if done else shape
    )
    if array.shape != shape:
        raise ValueError(f"{path} has shape {array.shape} instead of {shape}: delete it, and it is computed again")
    return array


@contextmanager
def _locked(path: Path, *, announced: bool) -> Iterator[None]:
    """Hold the lock on a file, after who holds it; the system takes it from a process that dies, so the file may stay.

    Raises:
        OSError: the file system has no locks.
    """
    import fcntl  # not on Windows, where images without latents are to work

    with path.open("a") as file:
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if announced:
                    print(f"note: another process computes {path.stem}, which is waited for", flush=True)
                fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            raise OSError(
                f"{path} cannot be locked ({error.strerror}): take a folder on another file system"
            ) from error
        yield


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON under another name first, so that an interruption leaves the old file or the new one."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)
