"""Ctrl-C and SIGTERM while a robot moves: end after the present tick, not in the middle of it."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["interrupts_remembered"]


@contextmanager
def interrupts_remembered() -> Iterator[threading.Event]:
    """Set the event upon SIGINT or SIGTERM instead of what would happen; a second one does what it always does.

    In another thread than the main one the event is never set: whoever runs the thread handles signals.
    """
    came = threading.Event()
    handlers: dict[int, object] = {}

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def remember(number: int, frame: FrameType | None) -> None:
        came.set()
        restore()

    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        restore()
