"""A server in a thread of its own, and the wire of openpi written down independently of ours."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import msgpack
import numpy as np
import torch
from small_policy import small_policy
from websockets.sync.client import connect

from shortcut_policy.policy import Policy
from shortcut_policy.realtime.server import PolicyServer
from shortcut_policy.realtime.server_config import ServerConfig

LIMIT_S = 60.0
"""For what a test waits for; generous, since nothing is measured by it."""


@contextmanager
def serving(policy: Policy | None = None, **config) -> Iterator[PolicyServer]:
    """A running server for the small policy (position (2,), angle (1,), To = 2) on a free port of the loopback."""
    values = {"port": 0, "max_batch": 4, "request_timeout_s": LIMIT_S, "client_timeout_s": LIMIT_S, **config}
    server = PolicyServer(policy or small_policy(), ServerConfig(**values))
    ready, errors = threading.Event(), []

    async def run() -> None:
        async with server:
            nonlocal loop, stop
            loop, stop = asyncio.get_running_loop(), asyncio.Event()
            ready.set()
            await stop.wait()

    def target() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            errors.append(error)
            ready.set()

    loop: asyncio.AbstractEventLoop
    stop: asyncio.Event
    thread = threading.Thread(target=target)
    thread.start()
    try:
        assert ready.wait(LIMIT_S)
        if errors:
            raise errors[0]
        yield server
    finally:
        if not errors:
            loop.call_soon_threadsafe(stop.set)
        thread.join(LIMIT_S)
        assert not thread.is_alive(), "the server must stop"
    assert errors == []


def connected(server: PolicyServer, **options):
    """A bare WebSocket to the server, as a client in another language would open it, for a `with` statement."""
    values = {"compression": None, "open_timeout": LIMIT_S, "proxy": None, **options}
    return connect(f"ws://127.0.0.1:{server.port}", **values)


def packed(message: dict) -> bytes:
    """What openpi's client sends for it."""

    def array(value):
        return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}

    return msgpack.packb(message, default=array)


def unpacked(data: bytes) -> dict:
    """What openpi's client reads from it."""
    assert isinstance(data, bytes), data

    def array(value):
        if b"__ndarray__" not in value:
            return value
        return np.ndarray(buffer=value[b"data"], dtype=np.dtype(value[b"dtype"]), shape=value[b"shape"])

    return msgpack.unpackb(data, object_hook=array)


def observation(number: float = 0.0, **changes) -> dict:
    """An observation of the small policy, another one for every number."""
    values = {"position": np.array([100.0 + 3 * number, 400.0 - 2 * number], np.float32)}
    return {**values, "angle": np.array([0.02 * number], np.float32), **changes}


def expected(policy, histories, seed=0, rows=4):
    """Chunks for one client's histories {key: (To, D)}, sampled without the server."""
    generator = torch.Generator().manual_seed(seed)
    chunks = []
    for history in histories:
        noise = torch.randn(1, *policy.chunk_shape, generator=generator)
        batch = {key: torch.from_numpy(np.stack([value] + [0 * value] * (rows - 1))) for key, value in history.items()}
        padded = torch.cat([noise, torch.zeros(rows - 1, *policy.chunk_shape)])
        chunks.append(policy.sample(batch, 1, noise=padded)[0].numpy())
    return chunks


def stacked(*observations):
    return {key: np.stack([o[key] for o in observations]) for key in observations[0]}


def ask_again(wire, message=None):
    wire.send(packed(message or observation()))
    return wire.recv(timeout=LIMIT_S)
