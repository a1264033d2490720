"""How commands end that are taken up again by the same command: collections and conversions of demonstrations."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from shortcut_policy.training.interruption import TrainingInterrupted


@contextmanager
def resumable(output: str) -> Iterator[Callable[[], None]]:
    """Let Ctrl-C and the death of a worker (exit code 1) end the command with a sentence that says how to go on.

    That Ctrl-C came is remembered, because KeyboardInterrupt can get lost: h5py makes a TypeError of one that strikes
    while it converts a string, and Python drops one that strikes in the callback of a weak reference.

    Args:
        output: what the same command goes on with.

    Yields:
        A function to be called now and then: it raises the KeyboardInterrupt that got lost.

    Raises:
        TrainingInterrupted: Ctrl-C came.
    """
    before = signal.getsignal(signal.SIGINT)
    interrupted = False

    def remember(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        if callable(before):
            before(number, frame)

    def raise_lost() -> None:
        if interrupted:
            raise KeyboardInterrupt

    if callable(before):  # it is not where a shell has started the command in the background, deaf to Ctrl-C
        signal.signal(signal.SIGINT, remember)
    try:
        yield raise_lost
    except ChildProcessError as error:
        print(f"error: {error}; the same command goes on with {output}", file=sys.stderr)
        sys.exit(1)
    except (KeyboardInterrupt, Exception) as error:
        if not (interrupted or isinstance(error, KeyboardInterrupt)):
            raise
        message = f"stopped: the same command goes on with {output}"
        raise TrainingInterrupted(message, signal.SIGINT) from error
    finally:
        signal.signal(signal.SIGINT, before)
