"""Recorded demonstrations replayed by worker processes: the parent's end."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from envs.replay import ReplayedDemo
from envs.replay_worker import serve_replays
from shortcut_policy.worker_processes import answers

__all__ = ["replay_demos"]


def replay_demos(
    path: Path,
    demos: Sequence[str],
    env_args: Mapping[str, Any],
    *,
    cameras: Sequence[str] = (),
    camera_size: int = 84,
    workers: int = 1,
) -> Iterator[tuple[str, ReplayedDemo]]:
    """Replay demonstrations of the recording at `path`, each as soon as a worker is free.

    No worker survives the iteration, however it ends.

    Args:
        path: an HDF5 file whose demos hold `states`, `actions` and `model_file`.
        demos: their names.
        env_args: of the recording.
        cameras: which become observations; needs GL.
        camera_size: side of these images, px.
        workers: number of processes.

    Yields:
        The name of a demo and what it showed, in the order in which they are done.

    Raises:
        ValueError, ImportError, ...: what a worker says of a user's mistake (with its traceback as a note).
        ChildProcessError: a worker died.
        RuntimeError: a worker failed otherwise (with its traceback).
    """
    yield from answers(
        serve_replays,
        str(path),
        env_args,
        tuple(cameras),
        camera_size,
        requests=demos,
        workers=workers,
        name="replay worker",
        task="it replayed",
    )
