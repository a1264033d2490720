"""Worker processes: started without the running script and torch, and heard to their end.

A worker answers every request with a pair (answer, failure), one of them None; a failure is what
`envs.worker_process.describe` says of an exception.
"""

import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.util import Finalize
from types import FrameType, ModuleType
from typing import Any, TypeVar

__all__ = ["GRACE_SECONDS", "Worker", "WorkerDied", "answers", "interrupts_deferred"]

Request = TypeVar("Request")

GRACE_SECONDS = 10.0
"""How long a worker may take to end by itself."""


class WorkerDied(Exception):
    """The pipe of a worker has closed; the message says how the worker ended."""


class Worker:
    """A spawned process that runs `target(connection, *arguments)`, and does not survive this object or this process.

    Args:
        target: found by name in a module that does not import torch; what it does first is
            `envs.worker_process.become_worker`, or the like.
        name: for messages.
    """

    def __init__(self, target: Callable[..., None], *arguments: Any, name: str) -> None:
        context = get_context("spawn")
        self.name = name
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=target, args=(theirs, *arguments), name=name, daemon=True)
        with _main_module_hidden(), theirs:  # only the worker holds its end: when it dies, the pipe closes
            self.process.start()
        # at its exit this process sends SIGTERM to its workers, which ignore it, and waits: before that they are killed
        Finalize(self, _kill, (self.process,), exitpriority=1)

    def send(self, request: Any) -> None:
        """Ask; a worker that is dead is noticed when its answer is received."""
        with suppress(OSError):
            self.connection.send(request)

    def receive(self) -> Any:
        """Wait for the next answer.

        Raises:
            WorkerDied: there will be none.
            RuntimeError, or one of `envs.worker_process.MISTAKES`: the worker raised an exception.
        """
        try:
            answer, failure = self.connection.recv()
        except (EOFError, OSError):
            raise WorkerDied(f"{self.name} died ({self._ending()})") from None
        if failure is None:
            return answer
        kind, message, trace = failure
        if kind is RuntimeError:
            raise RuntimeError(f"{self.name} failed:\n{trace}")
        error = kind(message)
        error.add_note(f"raised in {self.name}:\n{trace}")
        raise error

    def kill(self) -> None:
        """End the process, wherever it is."""
        _kill(self.process)
        self.process.join()

    def _ending(self) -> str:
        """How the process ended whose pipe has closed, in words."""
        self.process.join(GRACE_SECONDS)
        if self.process.exitcode is None:  # it let go of the pipe alone
            self.kill()
        code = self.process.exitcode or 0
        return f"signal {-code}, {signal.strsignal(-code)}" if code < 0 else f"exit code {code}"


def _kill(process: SpawnProcess) -> None:
    with suppress(ProcessLookupError):  # it has ended, and another thread was told
        process.kill()


def answers(
    target: Callable[..., None],
    *arguments: Any,
    requests: Iterable[Request],
    workers: int,
    name: str,
    task: str,
) -> Iterator[tuple[Request, Any]]:
    """Have requests answered by worker processes, each as soon as a worker is free.

    No worker survives the iteration, however it ends.

    Args:
        target: as `Worker` takes it.
        requests: taken one by one, when a worker is free; there may be no end to them.
        workers: number of processes; no more are started than there are requests.
        name: of a worker, for messages; its number follows.
        task: what it does with a request, for messages: "it replayed".

    Yields:
        A request and its answer, in the order in which they are done.

    Raises:
        ValueError, ImportError, ...: what a worker says of a user's mistake (with its traceback as a note).
        ChildProcessError: a worker died.
        RuntimeError: a worker failed otherwise (with its traceback).
    """
    waiting = iter(requests)
    started: list[Worker] = []
    busy: dict[Worker, Request] = {}

    def ask(worker: Worker, request: Request) -> None:
        busy[worker] = request
        worker.send(request)

    try:
        for number, request in zip(range(workers), waiting, strict=False):
            with interrupts_deferred():
                started.append(Worker(target, *arguments, name=f"{name} {number}"))
            ask(started[-1], request)
        while busy:
            answered = wait([worker.connection for worker in busy])
            for worker in [worker for worker in busy if worker.connection in answered]:
                request = busy.pop(worker)
                try:
                    answer = worker.receive()
                except WorkerDied as death:
                    raise ChildProcessError(f"{death} while {task} {request}: is there memory enough?") from None
                for following in waiting:
                    ask(worker, following)
                    break
                yield request, answer
    finally:
        for worker in started:
            worker.kill()  # it holds nothing that needs to be closed


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Hold SIGINT and SIGTERM back while a worker is started, until it is registered with whoever will end it.

    The worker inherits the mask, so that neither strikes it before it can ignore both. The mask is this thread's
    alone: a signal may reach another one, hence the handlers.
    """
    numbers = signal.SIGINT, signal.SIGTERM
    resource_tracker.ensure_running()  # each new process would start it, and it ends the deferral when it starts
    came: dict[int, FrameType | None] = {}
    here = threading.current_thread() is threading.main_thread()  # nowhere else are handlers set or called
    handlers = {number: signal.signal(number, came.setdefault) for number in numbers} if here else {}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)  # of all, before one that is called may leave by an exception
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, frame in sorted(came.items(), key=lambda item: -item[0]):  # SIGTERM, which notes, before SIGINT
            handler = handlers[signal.Signals(number)]
            if callable(handler):
                handler(number, frame)
            else:
                signal.raise_signal(number)  # ends this process, if nobody ignores it


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
