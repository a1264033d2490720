"""Recorded demonstrations replayed by worker processes: the parent's end."""

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from envs.replay import ReplayedDemo
from envs.replay_worker import serve_replays
from shortcut_policy.worker_processes import Worker, WorkerDied, interrupts_deferred

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
    arguments = (str(path), env_args, tuple(cameras), camera_size)
    waiting = deque(demos)
    started: list[Worker] = []
    replaying: dict[Worker, str] = {}

    def request(worker: Worker) -> None:
        if waiting:
            replaying[worker] = waiting.popleft()
            worker.send(replaying[worker])

    try:
        for number in range(min(workers, len(demos))):
            with interrupts_deferred():
                started.append(Worker(serve_replays, *arguments, name=f"replay worker {number}"))
            request(started[-1])
        while replaying:
            answered = wait([worker.connection for worker in replaying])
            for worker in [worker for worker in replaying if worker.connection in answered]:
                demo = replaying.pop(worker)
                try:
                    replayed = worker.receive()
                except WorkerDied as death:
                    raise ChildProcessError(f"{death} while it replayed {demo}: is there memory enough?") from None
                request(worker)
                yield demo, replayed
    finally:
        for worker in started:
            worker.kill()  # it holds nothing that needs to be closed
