"""Frames read from an HDF5 file, here or in a worker process: without torch, so that workers start quickly."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
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


def serve_frames(connection: Connection, path: Path, arrays: Mapping[str, str]) -> None:
    """Answer runs, as `read_frames` takes them, with (frames, failure), one of them None, until the pipe closes."""
    # Ctrl-C, timeout and scancel reach the whole group: the parent decides, and still needs frames to end its step
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    file = None
    with suppress(EOFError, ConnectionError):
        while True:
            runs = connection.recv()
            frames, failure = None, None
            try:
                file = file or _open(path)
                frames = read_frames(file, arrays, runs)
            except ValueError as error:
                failure = ValueError, str(error), traceback.format_exc()
            connection.send((frames, failure))


def _open(path: Path) -> h5py.File:
    """Open files cannot be sent to another process."""
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"images of {path} cannot be read: copy or download it again ({error})") from error


def _end_with_parent() -> None:
    """End even while the file system lets this process wait, or while a process that the parent forked has the pipe."""
    multiprocessing.parent_process().join()
    os._exit(1)
