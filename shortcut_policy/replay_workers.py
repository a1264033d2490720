"""Recorded demonstrations replayed by worker processes: the parent's end."""

import signal
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import ModuleType
from typing import Any

from envs.replay import ReplayedDemo
from envs.replay_worker import serve_replays

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
    processes: list[SpawnProcess] = []
    replaying: dict[Connection, str] = {}
    try:
        for _ in range(min(workers, len(demos))):
            connection = _start(arguments, processes)
            _request(connection, waiting, replaying)
        while replaying:
            for connection in wait(list(replaying)):
                assert isinstance(connection, Connection)
                demo = replaying.pop(connection)
                replayed = _receive(connection, demo)
                _request(connection, waiting, replaying)
                yield demo, replayed
    finally:
        for process in processes:
            process.kill()  # it holds nothing that needs to be closed
            process.join()


def _start(arguments: tuple[Any, ...], processes: list[SpawnProcess]) -> Connection:
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve_replays, args=(theirs, *arguments), daemon=True)
    with theirs, _interrupts_deferred(), _main_module_hidden():  # only the worker holds its end: if it dies, it closes
        process.start()
        processes.append(process)
    return ours


def _request(connection: Connection, waiting: deque[str], replaying: dict[Connection, str]) -> None:
    if waiting:
        demo = replaying[connection] = waiting.popleft()
        with suppress(OSError):  # it is dead: noticed when its answer is received
            connection.send(demo)


def _receive(connection: Connection, demo: str) -> ReplayedDemo:
    try:
        replayed, failure = connection.recv()
    except (EOFError, OSError):
        raise ChildProcessError(f"the worker process died that replayed {demo}: is there memory enough?") from None
    if failure is None:
        return replayed
    kind, message, trace = failure
    if kind is RuntimeError:
        raise RuntimeError(f"the replay of {demo} failed:\n{trace}")
    error = kind(message)
    error.add_note(f"raised in a worker process:\n{trace}")
    raise error


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Hold Ctrl-C back until a new worker is registered; it inherits the mask until it can ignore Ctrl-C."""
    resource_tracker.ensure_running()  # each new process would start it, and it ends the deferral when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep new worker processes from importing the running script, and with it torch: they need nothing of it."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
