"""Environments in worker processes: the parent's end, which starts the workers, feeds them and replaces the dead.

Actions and outcomes travel through pipes: 170 kB, eight images of 84 x 84, take 0.1 ms, less than drawing one of
them, and a pipe leaves nothing behind and knows no half-written memory, whenever a process dies.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Self

import cloudpickle
import gymnasium
import numpy as np

from envs.hosting import HostSpec, Outcome, serve
from shortcut_policy.worker_processes import GRACE_SECONDS, Worker, WorkerDied, interrupts_deferred

__all__ = ["RolloutWorkers"]


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
        self._workers: list[Worker] = []
        self._built: set[int] = set()  # numbers of the workers whose first message, the spec, was received
        try:
            for number in range(workers):
                with interrupts_deferred():
                    self._workers.append(self._start(number))
            self.spec: HostSpec = self._workers[0].receive()
            self._built.add(0)
            for number in range(workers):
                self._await_built(number)
        except WorkerDied as death:
            self._end(0)
            raise RuntimeError(f"{death} while it built its environments: see its own messages above") from None
        except BaseException:
            self._end(0)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        self._end(GRACE_SECONDS if kind is None else 0)

    @property
    def num_envs(self) -> int:
        """Number of rows."""
        return len(self._seeds)

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
            parts = [np.asarray(values)[places] for values in (rows_there, *arguments)]
            self._workers[number].send((method, *parts))
        records = np.zeros(len(rows), self.spec.record)
        frames = {}
        for number, places in asked.items():
            try:
                self._await_built(number)
                packed, images = self._workers[number].receive()
            except WorkerDied as death:
                records["lost"][places] = True
                seeds = ", ".join(str(self._seeds[rows[i]]) for i in places)
                warnings.warn(f"{death} while it ran seed {seeds}: a new one replaces it", RuntimeWarning, stacklevel=2)
                self._replace(number)
            else:
                records[places] = np.frombuffer(packed, self.spec.record)
                frames |= {places[i]: image for i, image in images.items()}
        return Outcome(records, frames)

    def _await_built(self, number: int) -> None:
        if number not in self._built:
            spec = self._workers[number].receive()
            if spec != self.spec:
                raise ValueError(f"make_env must build alike environments, got {self.spec} and {spec}")
            self._built.add(number)

    def _replace(self, number: int) -> None:
        self._workers[number].connection.close()
        self._built.discard(number)
        with interrupts_deferred():
            self._workers[number] = self._start(number)

    def _start(self, number: int) -> Worker:
        return Worker(serve, self._factory, self._hosted[number], name=f"rollout worker {number}")

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
                worker.kill()
