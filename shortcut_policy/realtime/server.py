"""A policy behind a WebSocket: several robots ask at the same time, and none can spoil another's answers.

On connecting, a client gets a map that describes the policy. Then it sends requests and gets one answer for each:

    {key: (D,), ...}              the newest observation; the server keeps the To that the policy needs. Images are
                                  (H, W, C) uint8
    {key: (To, D), ...}           or these To themselves, oldest first: for a robot that does not ask at every step
                                  -> {"actions": (T, E) float32 in the data's units, "server_timing": {"infer_ms": ...}}
    {..., "committed": (k, E)}    beside an observation, for a policy with prefix conditioning: the actions from now on
                                  that will have been executed when the answer comes, which begins with them
    {"reset": True}               an episode begins: earlier observations are forgotten -> {"reset": True}
    {"reset": True, "seed": 3}    ... with this seed of the noise; both also beside an episode's first observation

An error is a text message, after which the connection goes on; only a message that is too large ends it, since what it
says is never read. GET /healthz answers OK. A token goes into the header `Authorization: Api-Key ...`. All messages are
as openpi's client and server write them (`wire.py`), so that its clients can ask this server.
"""

import asyncio
import hmac
import http
import logging
import time
from typing import Any, Self

import numpy as np

from shortcut_policy.policy import Policy
from shortcut_policy.realtime import wire
from shortcut_policy.realtime.client_state import ClientState
from shortcut_policy.realtime.padded_sampler import PaddedSampler, SampleRequest
from shortcut_policy.realtime.request_batcher import RequestBatcher
from shortcut_policy.realtime.requests import parse_request
from shortcut_policy.realtime.server_config import ServerConfig

try:
    from websockets.asyncio.server import Server, ServerConnection, serve
    from websockets.exceptions import ConnectionClosed
    from websockets.frames import CloseCode
    from websockets.http11 import Request, Response
except ImportError as error:
    raise ImportError("serving policies needs the extra 'server': pip install -e '.[server]'") from error

STOP_S = 2.0
"""Seconds that clients get to say goodbye when the server stops."""

logger = logging.getLogger(__name__)


class PolicyServer:
    """Serves a policy inside an `async with` block.

        async with PolicyServer(policy, ServerConfig(port=8000)) as server:
            await stop.wait()

    Leaving the block answers the requests that are being worked on, turns new ones away and says goodbye.

    Args:
        policy: on the device on which it shall run; nobody else may use it meanwhile.

    Attributes:
        metadata: what every client is told of the policy.
        port: on which the server listens.

    Raises:
        ValueError: the policy cannot be served so, or (on entering) the address is not free.
    """

    def __init__(self, policy: Policy, config: ServerConfig) -> None:
        self.config = config
        self._sampler = PaddedSampler(policy, config.num_steps, config.max_batch)
        self._clients: set[ServerConnection] = set()
        self._busy: set[ServerConnection] = set()
        self._stopping = False
        self._server: Server | None = None
        self.port = config.port
        self.metadata: dict[str, Any] = {
            "server": "shortcut-policy",
            "accepts_reset": True,
            "task": policy.config.metadata.get("task"),
            "observation_shapes": {key: list(shape) for key, shape in self._sampler.spec.shapes.items()},
            "images": sorted(self._sampler.spec.images),
            "observation_steps": self._sampler.spec.steps,
            "horizon": self._sampler.horizon,
            "action_steps": policy.config.action_steps,
            "action_dim": self._sampler.spec.action_dim,
            "prefix_steps": self._sampler.spec.prefix_steps,
            "num_steps": config.num_steps,
            "noise_scale": policy.config.noise_scale,
        }
        self._greeting = wire.pack(self.metadata)

    async def __aenter__(self) -> Self:
        config = self.config
        self._batcher = RequestBatcher[SampleRequest, np.ndarray](self._sampler, config.max_batch)
        try:
            self._server = await serve(
                self._serve_client,
                config.host,
                config.port,
                process_request=self._before_handshake,
                origins=[None],  # only browsers send one: no page that somebody visits shall move the robot
                compression=None,  # a small message could become a huge one
                open_timeout=config.client_timeout_s,
                ping_interval=config.client_timeout_s,
                ping_timeout=config.client_timeout_s,
                close_timeout=STOP_S,
                max_size=config.max_message_bytes,
                max_queue=2,  # a client has one request at a time
            )
        except OSError as error:
            self._batcher.close()
            raise ValueError(f"cannot listen on {config.host}:{config.port} ({error}): choose another") from error
        self.port = self._server.sockets[0].getsockname()[1]
        if config.warning:
            logger.warning("warning: %s", config.warning)
        return self

    async def __aexit__(self, *exception: object) -> None:
        assert self._server is not None
        self._stopping = True
        until = time.monotonic() + self.config.request_timeout_s
        while self._busy and time.monotonic() < until:
            await asyncio.sleep(0.01)
        self._server.close()
        try:
            async with asyncio.timeout(2 * STOP_S):
                await self._server.wait_closed()
        except TimeoutError:  # somebody connected and has not said anything yet
            logger.info("stopped without waiting for clients that do not answer")
        self._batcher.close()

    def _before_handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        if request.path == "/healthz":
            return connection.respond(http.HTTPStatus.OK, "OK\n")
        if self._stopping:
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "the server stops\n")
        if self.config.token is not None:
            expected = f"Api-Key {self.config.token}".encode()
            given = ",".join(request.headers.get_all("Authorization")).encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(given, expected):
                logger.info("%s has not the right token", connection.remote_address)
                return connection.respond(http.HTTPStatus.UNAUTHORIZED, "this server needs the right token\n")
        return None

    async def _serve_client(self, connection: ServerConnection) -> None:
        if len(self._clients) >= self.config.max_connections:
            limit = f"{self.config.max_connections} clients are connected, which is the most"
            await connection.close(CloseCode.TRY_AGAIN_LATER, limit)
            return
        self._clients.add(connection)
        logger.info("%s connected", connection.remote_address)
        try:
            await self._send(connection, self._greeting)
            state, previous_ms = ClientState(self._sampler, self.config.seed), None
            while not self._stopping:
                data = await self._receive(connection)
                received = time.monotonic()
                self._busy.add(connection)
                try:
                    await self._send(connection, await self._answer(state, data, previous_ms))
                finally:
                    self._busy.discard(connection)
                previous_ms = 1e3 * (time.monotonic() - received)
        except ConnectionClosed:
            pass
        except TimeoutError:
            logger.info("%s is too slow", connection.remote_address)
            connection.transport.abort()
        finally:
            self._clients.discard(connection)
            logger.info("%s left", connection.remote_address)

    async def _answer(self, state: ClientState, data: bytes | str, previous_ms: float | None) -> bytes | str:
        """The answer to one message: bytes, or text for an error, as openpi's clients expect it."""
        started = time.monotonic()
        try:
            if isinstance(data, str):
                raise ValueError("a request must be a binary message, got text")
            row = state.next(parse_request(wire.unpack(data), self._sampler.spec))
            if row is None:
                return wire.pack({"reset": True})
            async with asyncio.timeout(self.config.request_timeout_s):
                actions = await self._batcher.submit(row)
        except TimeoutError:
            return f"error: no answer within {self.config.request_timeout_s} s, the server is too busy: ask again"
        except (ValueError, RuntimeError) as error:
            return f"error: {error}"
        if not np.isfinite(actions).all():
            return "error: the policy's actions are not finite: the observation may be far from all of the training's"
        timing = {"infer_ms": 1e3 * (time.monotonic() - started)}
        if previous_ms is not None:
            timing["prev_total_ms"] = previous_ms
        return wire.pack({"actions": actions, "server_timing": timing})

    async def _receive(self, connection: ServerConnection) -> bytes | str:
        """The next message: a client may think as long as it likes, but not stop in the middle of one."""
        fragments = aiter(connection.recv_streaming())
        parts = [await anext(fragments)]
        async with asyncio.timeout(self.config.client_timeout_s):
            async for part in fragments:
                parts.append(part)
        return parts[0][:0].join(parts)  # type: ignore[arg-type]  # all bytes, or all text

    async def _send(self, connection: ServerConnection, message: bytes | str) -> None:
        async with asyncio.timeout(self.config.client_timeout_s):
            await connection.send(message)
