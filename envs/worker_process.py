"""What every worker process does: leave signals to its parent, end with it, and say what went wrong."""

import multiprocessing
import os
import signal
import threading
import traceback

__all__ = ["MISTAKES", "become_worker", "describe"]

MISTAKES = (ValueError, FileNotFoundError, FileExistsError, ImportError)
"""What a user's mistake raises: these keep type and sentence on their way out of a worker."""


def become_worker() -> None:
    """Let the parent decide what Ctrl-C, timeout and scancel mean, which reach the whole group; end when it ends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def describe(error: Exception) -> tuple[type[Exception], str, str]:
    """The built-in kind of an exception, its message, its traceback: pickled by name and as text."""
    kind = next((kind for kind in MISTAKES if isinstance(error, kind)), RuntimeError)
    return kind, str(error), "".join(traceback.format_exception(error))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)  # even in the middle of a long step
