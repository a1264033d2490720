"""The loop of a worker process that replays the demonstrations of a recording, one for each request."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import h5py

from envs.replay import DemoReplayer
from envs.worker_process import become_worker, describe

__all__ = ["serve_replays"]


def serve_replays(
    connection: Connection, path: str, env_args: Mapping[str, Any], cameras: Sequence[str], camera_size: int
) -> None:
    """Replay demonstrations of the recording at `path` until the parent's pipe closes; the rest: see `DemoReplayer`.

    A request is the name of a demo, every answer a pair (`ReplayedDemo`, failure), one of them None; the worker ends
    after a failure.
    """
    become_worker()
    demo = None
    try:
        with DemoReplayer(env_args, cameras, camera_size) as replayer, h5py.File(path, "r") as file, suppress(EOFError):
            while True:
                demo = connection.recv()
                group = file["data"][demo]
                replayed = replayer.replay(group.attrs["model_file"], group["states"][()], group["actions"][()])
                connection.send((replayed, None))
    except Exception as error:
        kind, message, trace = describe(error)
        with suppress(OSError):  # nobody listens any more
            connection.send((None, (kind, message if demo is None else f"{demo} of {path}: {message}", trace)))
