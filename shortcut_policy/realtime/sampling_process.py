"""Sampling in a process of its own, which shares neither the interpreter's lock nor the memory with the loop."""

import pickle
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Self

import cloudpickle
import numpy as np

from envs.worker_process import become_worker, describe
from shortcut_policy.worker_processes import Worker, WorkerDied, interrupts_deferred

__all__ = ["SamplingProcess"]


class SamplingProcess:
    """A function from observations to chunks, computed by another process: to be handed to a control loop.

        with SamplingProcess(lambda: chunk_function(Policy.from_pretrained(path))) as sample:
            ControlLoop(robot, sample, config).run()

    The loop waits for it in its sampling thread. It is a context manager, and no process survives it.
    """

    def __init__(self, make_sample: Callable[[], Callable[..., np.ndarray]]) -> None:
        """Start the process and wait until the function is made.

        Args:
            make_sample: called in the process, where it makes the function; sent by cloudpickle.

        Raises:
            RuntimeError: it fails there (with its traceback), or the process dies.
            ValueError, FileNotFoundError, ImportError, ...: what it says of a user's mistake.
        """
        with interrupts_deferred():
            self._worker = Worker(_serve, cloudpickle.dumps(make_sample), name="sampling process")
        try:
            self._receive()
        except BaseException:
            self._worker.kill()
            raise

    def __call__(self, history: Mapping[str, np.ndarray], *committed: np.ndarray) -> np.ndarray:
        """Send {key: (To, *shape)} and, if any, committed actions (k, A), and wait for the chunk (T, A).

        Raises:
            RuntimeError: the function failed, or the process died.
        """
        self._worker.send((dict(history), *committed))
        return self._receive()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._worker.connection.close()
        self._worker.kill()  # it holds nothing that needs to be closed

    def _receive(self) -> np.ndarray:
        try:
            return self._worker.receive()
        except WorkerDied as death:
            raise RuntimeError(f"the {death}: its own messages may say why") from None


def _serve(connection: Connection, factory: bytes) -> None:
    """Answer every request with (chunk, failure), one of them None; first of all, say that the function is made."""
    become_worker()
    try:
        sample = pickle.loads(factory)()
        connection.send((None, None))
        with suppress(EOFError, ConnectionError):
            while True:
                connection.send((np.asarray(sample(*connection.recv())), None))
    except Exception as error:
        with suppress(OSError):  # nobody listens any more
            connection.send((None, describe(error)))
