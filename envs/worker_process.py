"""What every worker process does: leave signals to its parent, end with it, and say what went wrong."""

import multiprocessing
import os
import signal
import threading
import traceback
from types import FrameType

__all__ = ["MISTAKES", "become_worker", "describe"]

MISTAKES = (ValueError, FileNotFoundError, FileExistsError, ImportError)
"""What a user's mistake raises: these keep type and sentence on their way out of a worker."""


def become_worker() -> None:
    """Let the parent decide what Ctrl-C, timeout and scancel mean, which reach the whole group; end when it ends."""
    numbers = signal.SIGINT, signal.SIGTERM
    for number in numbers:
        # not SIG_IGN, which what an environment starts would inherit, deaf to its own end
        signal.signal(number, _leave_to_parent)
        signal.siginterrupt(number, False)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)  # blocked until now, see `interrupts_deferred`
    threading.Thread(target=_end_with_parent, daemon=True).start()


def describe(error: Exception) -> tuple[type[Exception], str, str]:
    """The built-in kind of an exception, its message, its traceback: pickled by name and as text."""
    kind = next((kind for kind in MISTAKES if isinstance(error, kind)), RuntimeError)
    return kind, str(error), "".join(traceback.format_exception(error))


def _leave_to_parent(number: int, frame: FrameType | None) -> None:
    """Do nothing."""


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # even in the middle of a long step
