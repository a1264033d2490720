"""Arrays that are computed once, block by block, and then lie on disk to be mapped into memory."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
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

    An interrupted computation goes on with the first block that is missing.

    Args:
        folder: for the files; those of another identity have another name.
        identity: JSON values on which the array depends.
        shape, dtype: of the array.
        compute: (start, stop) -> the rows in between.
        block: rows that are computed at once.
        title: of the progress bar.
        progress: whether it is shown.

    Raises:
        ValueError: the files there are damaged.
    """
    text = json.dumps({**identity, "shape": list(shape), "dtype": str(np.dtype(dtype))}, sort_keys=True)
    path = folder / f"{title}_{hashlib.sha256(text.encode()).hexdigest()[:16]}.npy"
    state = path.with_suffix(".json")
    folder.mkdir(parents=True, exist_ok=True)
    done = 0
    if state.exists() and path.exists():
        try:
            done = int(json.loads(state.read_text())["rows"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{state} is damaged ({error}): delete it, and {path.name} is computed again") from error
    if done < shape[0]:
        array = np.lib.format.open_memmap(path, mode="r+" if done else "w+", dtype=dtype, shape=None if done else shape)
        if array.shape != shape:
            raise ValueError(f"{path} has shape {array.shape} instead of {shape}: delete it, and it is computed again")
        with tqdm(total=shape[0], initial=done, unit="image", desc=title, disable=not progress, mininterval=1.0) as bar:
            for start in range(done, shape[0], block):
                stop = min(start + block, shape[0])
                array[start:stop] = compute(start, stop)
                array.flush()
                _write(state, {"rows": stop, "identity": json.loads(text)})
                bar.update(stop - start)
        del array
    mapped: np.ndarray = np.load(path, mmap_mode="r")
    return mapped


def _write(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON under another name first, so that an interruption leaves the old file or the new one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content))
    os.replace(temporary, path)
