"""Ask a policy server, ours or openpi's. Needs numpy, websockets and msgpack, not torch: it runs on the robot."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any, Self

from shortcut_policy.realtime import wire

try:
    from websockets.exceptions import ConnectionClosed, WebSocketException
    from websockets.sync.client import connect
except ImportError as error:
    raise ImportError("asking a policy server needs the extra 'server': pip install -e '.[server]'") from error

_MAX_ANSWER_BYTES = 64 * 2**20


class PolicyServerError(RuntimeError):
    """The server answered with an error; the connection goes on."""


class PolicyClient:
    """A connection to a policy server, for one thread.

        with PolicyClient("127.0.0.1", 8000) as client:
            actions = client.infer({"agent_pos": position, "keypoints": points})["actions"]  # (T, E)

    Args:
        host: name or address of the server, or `wss://...` where something in front of it speaks TLS.
        port: None where `host` says it all.
        token: if the server wants one.
        timeout: seconds to wait for the connection and for every answer.

    Attributes:
        metadata: what the server says of its policy.

    Raises:
        ConnectionError: there is no server, or it turns us away.
        TimeoutError: it does not answer.
    """

    def __init__(
        self, host: str = "127.0.0.1", port: int | None = 8000, token: str | None = None, timeout: float = 10.0
    ) -> None:
        name = f"[{host}]" if host.count(":") > 1 and "://" not in host and not host.startswith("[") else host
        self._uri = (name if "://" in name else f"ws://{name}") + ("" if port is None else f":{port}")
        self._timeout = timeout
        with ExitStack() as stack:
            try:
                self._socket = stack.enter_context(
                    connect(
                        self._uri,
                        additional_headers=None if token is None else {"Authorization": f"Api-Key {token}"},
                        compression=None,
                        proxy=None,  # a variable of the environment shall not lead the robot's messages elsewhere
                        open_timeout=timeout,
                        close_timeout=min(timeout, 2.0),
                        max_size=_MAX_ANSWER_BYTES,
                    )
                )
            except TimeoutError as error:
                raise TimeoutError(f"the policy server at {self._uri} does not answer within {timeout} s") from error
            except (OSError, WebSocketException) as error:
                raise ConnectionError(f"no policy server at {self._uri} takes us: {error}") from error
            self._stack = stack
            self.metadata: dict[str, Any] = self._receive()
            self._stack = stack.pop_all()

    def infer(self, observation: Mapping[str, Any], committed: Any = None) -> dict[str, Any]:
        """The server's answer to an observation, with the chunk in "actions".

        Args:
            observation: {key: (D,)}, the newest observation, where the server is asked at every control step: it keeps
                the last To itself. A robot that asks less often sends these To, {key: (To, D)}, oldest first: the
                policy knows observations that are one control step apart.
            committed: (k, E), for a policy with prefix conditioning (`metadata["prefix_steps"]`, the most): the actions
                that the robot will have executed, from now on, when it has the answer, which begins with them.

        Returns:
            {"actions": (T, E) in the data's units, the action for the newest observation first, "server_timing": ...}

        Raises:
            PolicyServerError: the server cannot answer it; the message says why.
            TimeoutError: no answer in time. The connection is closed, for a late answer must not pass for the next one.
            ConnectionError: the connection is closed.
            ValueError: the observation cannot be sent.
        """
        return self._ask({**observation, **({} if committed is None else {"committed": committed})})

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode: the server forgets earlier observations.

        A server that does not know resets, such as openpi's, remembers nothing and is not asked.

        Args:
            seed: of the noise in this episode; the answers are then those of an evaluation's episode with this seed.
        """
        if self.metadata.get("accepts_reset"):
            self._ask({"reset": True} if seed is None else {"reset": True, "seed": seed})

    def close(self) -> None:
        """End the connection."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _ask(self, message: dict[str, Any]) -> dict[str, Any]:
        data = wire.pack(message)
        try:
            self._socket.send(data)
        except ConnectionClosed as error:
            raise self._lost(error) from error
        return self._receive()

    def _receive(self) -> dict[str, Any]:
        try:
            answer = self._socket.recv(timeout=self._timeout)
        except TimeoutError as error:
            self.close()
            raise TimeoutError(
                f"the policy server at {self._uri} did not answer within {self._timeout} s: the connection is closed"
            ) from error
        except ConnectionClosed as error:
            raise self._lost(error) from error
        if isinstance(answer, str):
            raise PolicyServerError(answer)
        return wire.unpack(answer)

    def _lost(self, error: ConnectionClosed) -> ConnectionError:
        return ConnectionError(f"the connection to the policy server at {self._uri} is closed: {error}")
