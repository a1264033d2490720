"""Frames read from an HDF5 file, here or in a worker process: without torch, so that workers start quickly."""

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np


@dataclass(frozen=True)
class FrameRun:
    """Consecutive frames of one demo: start ... stop - 1."""

    demo: str
    start: int
    stop: int


def read_frames(file: h5py.File, arrays: Mapping[str, str], runs: Sequence[FrameRun]) -> dict[str, np.ndarray]:
    """Read the frames of all runs, one after the other: key -> (U, H, W, C) uint8.

    Raises:
        ValueError: when they cannot be read.
    """
    try:
        return {
            key: np.concatenate([file["data"][run.demo][array][run.start : run.stop] for run in runs])
            for key, array in arrays.items()
        }
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(f"images of {file.filename} cannot be read: copy or download it again ({error})") from error


# What follows runs in worker processes.


def start_worker() -> None:
    """Leave Ctrl-C to the parent process, and end with it, however it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)


def read_frames_in_worker(path: Path, arrays: Mapping[str, str], runs: Sequence[FrameRun]) -> dict[str, np.ndarray]:
    """Read frames as `read_frames` does, from a file that the process keeps open."""
    return read_frames(_open_once(path), arrays, runs)


@functools.lru_cache(maxsize=1)
def _open_once(path: Path) -> h5py.File:
    """Open files cannot be sent to another process."""
    return h5py.File(path, "r")
