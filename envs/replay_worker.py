"""The loop of a worker process that replays the demonstrations of a recording, one for each request."""

import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import h5py

from envs.hosting import MISTAKES
from envs.replay import DemoReplayer

__all__ = ["serve_replays"]


def serve_replays(
    connection: Connection, path: str, env_args: Mapping[str, Any], cameras: Sequence[str], camera_size: int
) -> None:
    """Replay demonstrations of the recording at `path` until the parent's pipe closes; the rest: see `DemoReplayer`.

    A request is the name of a demo, every answer a pair (`ReplayedDemo`, failure), one of them None. A failure is (the
    built-in kind of the exception, its message, its traceback), after which the worker ends.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group: the parent decides what it means
    threading.Thread(target=_end_with_parent, daemon=True).start()
    demo = None
    try:
        with DemoReplayer(env_args, cameras, camera_size) as replayer, h5py.File(path, "r") as file, suppress(EOFError):
            while True:
                demo = connection.recv()
                group = file["data"][demo]
                replayed = replayer.replay(group.attrs["model_file"], group["states"][()], group["actions"][()])
                connection.send((replayed, None))
    except Exception as error:
        kind = next((kind for kind in MISTAKES if isinstance(error, kind)), RuntimeError)
        message = str(error) if demo is None else f"{demo} of {path}: {error}"
        with suppress(OSError):  # nobody listens any more
            connection.send((None, (kind, message, "".join(traceback.format_exception(error)))))


def _end_with_parent() -> None:
    """End this process with its parent, even if that was killed and in the middle of a long replay."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
