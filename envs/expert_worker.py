"""The loop of a worker process in which a task's expert acts, one episode for each request."""

from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from typing import Any

import envs
from envs.experts.episode import run_episode
from envs.worker_process import become_worker, describe

__all__ = ["serve_episodes"]


def serve_episodes(
    connection: Connection, task: str, env_args: Mapping[str, Any], cameras: Sequence[str], camera_size: int
) -> None:
    """Run episodes until the parent's pipe closes.

    A request is a seed, every answer a pair (`Episode`, failure), one of them None; the worker ends after a failure.
    """
    become_worker()
    try:
        made = envs.make(task, env_args=env_args, cameras=cameras, camera_size=camera_size)
        with closing(made) as env, suppress(EOFError):
            while True:
                connection.send((run_episode(env, task, connection.recv()), None))
    except Exception as error:
        with suppress(OSError):  # nobody listens any more
            connection.send((None, describe(error)))
