"""Environments in worker processes: the parent's end, which starts the workers, feeds them and replaces the dead.

Actions and outcomes travel through pipes: 170 kB, eight images of 84 x 84, take 0.1 ms, less than drawing one of
them, and a pipe leaves nothing behind and knows no half-written memory, whenever a process dies.
"""

import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from types import ModuleType
from typing import Any, Self

import cloudpickle
import gymnasium
import numpy as np

from envs.hosting import HostSpec, Outcome, serve

__all__ = ["RolloutWorkers"]

GRACE_SECONDS = 10.0
"""How long a worker may take to close its environments."""


@dataclass
class _Worker:
    process: SpawnProcess
    connection: Connection
    built: bool = False  # whether its first message, the spec, was received


class _WorkerDied(Exception):
    """The pipe of a worker has closed; the message says how the worker ended."""


class RolloutWorkers:
    """`num_envs` environments, the rows, hosted by `workers` processes; otherwise used like an `EnvironmentHost`.

    Row r lives in worker r % workers, so that the first rows are spread over all workers. Use it as a context
    manager: no worker survives it. When a worker dies, that is reported as a RuntimeWarning, its rows of the outcome
    are marked `lost`, and a new worker with new environments takes its place; they need a reset.
    """

    def __init__(self, make_env: Callable[[], gymnasium.Env], num_envs: int, workers: int) -> None:
        """Start the workers and wait until all have built their environments.

        Args:
            make_env: Sent by cloudpickle; workers import what it needs and no more.
            num_envs: At least `workers`.
            workers: Number of processes.

        Raises:
            RuntimeError: A worker dies or fails meanwhile (with the worker's traceback).
            ValueError, ImportError, ...: What `make_env` says of a user's mistake (with that traceback as a note).
        """
        self._factory = cloudpickle.dumps(make_env)
        self._hosted = [len(range(number, num_envs, workers)) for number in range(workers)]
        self._seeds = [0] * num_envs
        self._workers: list[_Worker] = []
        try:
            for number in range(workers):
                with _interrupts_deferred():
                    self._workers.append(self._start(number))
            self.spec: HostSpec = self._receive(0)
            self._workers[0].built = True
            for number in range(workers):
                self._await_built(number)
        except _WorkerDied as death:
            self._end(0)
            raise RuntimeError(f"{death} while it built its environments: see its own messages above") from None
        except BaseException:
            self._end(0)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._end(GRACE_SECONDS if kind is None else 0)

    def reset(self, rows: Sequence[int], seeds: Sequence[int], filmed: Sequence[bool]) -> Outcome:
        """Begin episodes; see `EnvironmentHost.reset`."""
        for row, seed in zip(rows, seeds, strict=True):
            self._seeds[row] = seed
        return self._ask("reset", rows, seeds, filmed)

    def step(self, rows: Sequence[int], actions: np.ndarray) -> Outcome:
        """Step environments; see `EnvironmentHost.step`."""
        return self._ask("step", rows, actions)

    def _ask(self, method: str, rows: Sequence[int], *arguments: Sequence[Any] | np.ndarray) -> Outcome:
        rows_there, numbers = np.divmod(rows, len(self._workers))  # (n,) each
        places_of = {number: np.flatnonzero(numbers == number) for number in range(len(self._workers))}
        asked = {number: places for number, places in places_of.items() if places.size}
        for number, places in asked.items():
            with suppress(OSError):  # it is dead: noticed below
                parts = [np.asarray(values)[places] for values in (rows_there, *arguments)]
                self._workers[number].connection.send((method, *parts))
        records = np.zeros(len(rows), self.spec.record)
        frames = {}
        for number, places in asked.items():
            try:
                self._await_built(number)
                packed, images = self._receive(number)
            except _WorkerDied as death:
                records["lost"][places] = True
                seeds = ", ".join(str(self._seeds[rows[i]]) for i in places)
                warnings.warn(f"{death} while it ran seed {seeds}: a new one replaces it", RuntimeWarning, stacklevel=2)
                self._replace(number)
            else:
                records[places] = np.frombuffer(packed, self.spec.record)
                frames |= {places[i]: image for i, image in images.items()}
        return Outcome(records, frames)

    def _await_built(self, number: int) -> None:
        worker = self._workers[number]
        if not worker.built:
            spec = self._receive(number)
            if spec != self.spec:
                raise ValueError(f"make_env must build alike environments, got {self.spec} and {spec}")
            worker.built = True

    def _receive(self, number: int) -> Any:
        """The worker's next answer.

        Raises:
            _WorkerDied: There will be none.
            RuntimeError, or one of `envs.hosting.MISTAKES`: Its environment raised an exception.
        """
        worker = self._workers[number]
        try:
            answer, failure = worker.connection.recv()
        except (EOFError, OSError):
            raise _WorkerDied(f"rollout worker {number} died ({_ending(worker.process)})") from None
        if failure is None:
            return answer
        kind, message, trace = failure
        if kind is RuntimeError:
            raise RuntimeError(f"an environment failed in rollout worker {number}:\n{trace}")
        error = kind(message)
        error.add_note(f"raised in rollout worker {number}:\n{trace}")
        raise error

    def _replace(self, number: int) -> None:
        self._workers[number].connection.close()
        with _interrupts_deferred():
            self._workers[number] = self._start(number)

    def _start(self, number: int) -> _Worker:
        context = get_context("spawn")
        ours, theirs = context.Pipe()
        arguments = (theirs, self._factory, self._hosted[number])
        process = context.Process(target=serve, args=arguments, name=f"rollout worker {number}", daemon=True)
        with _main_module_hidden(), theirs:  # only the worker holds its end: when it dies, the pipe closes
            process.start()
        return _Worker(process, ours)

    def _end(self, seconds: float) -> None:
        """Let the workers end by themselves for some time, then kill them."""
        deadline = time.monotonic() + seconds
        try:
            for worker in self._workers:
                worker.connection.close()
            for worker in self._workers:
                worker.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            for worker in self._workers:
                worker.process.kill()
                worker.process.join()


def _ending(process: SpawnProcess) -> str:
    """How the process ended whose pipe has closed, in words."""
    process.join(GRACE_SECONDS)
    if process.exitcode is None:  # it let go of the pipe alone
        process.kill()
        process.join()
    code = process.exitcode or 0
    return f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"


@contextmanager
def _interrupts_deferred() -> Iterator[None]:
    """Hold Ctrl-C back until a new worker is registered.

    The worker inherits the mask, so that Ctrl-C does not strike it before it can ignore it.
    """
    resource_tracker.ensure_running()  # each new process would start it, and it ends the deferral when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep new worker processes from importing the running script, and with it torch.

    They would do so to unpickle its objects, but cloudpickle sends the objects of `__main__` by value.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
