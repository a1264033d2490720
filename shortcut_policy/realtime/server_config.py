"""How a policy is served."""

import ipaddress
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ServerConfig:
    """Where the server listens, what it samples, and what it puts up with.

    Args:
        host: address of the interface; only this machine reaches the default.
        port: TCP port, 0 for any that is free.
        token: what a client must know; None: nothing.
        num_steps: network evaluations per chunk.
        seed: of every client's noise, until it resets with another.
        max_batch: rows of every batch, used or not. More robots than this are answered in turn.
        max_connections: clients at a time; one more is turned away.
        max_message_bytes: a larger message ends its connection.
        request_timeout_s: seconds until a request that is not answered gets an error instead.
        client_timeout_s: seconds that a client may keep the server waiting: for the handshake, for the rest of a
            message, for taking its answer, for the answer to a ping. Then its connection ends.

    Raises:
        ValueError: a value that cannot be; the message quotes it.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    num_steps: int = 1
    seed: int = 0
    max_batch: int = 4
    max_connections: int = 64
    max_message_bytes: int = 8 * 2**20
    request_timeout_s: float = 10.0
    client_timeout_s: float = 20.0

    def __post_init__(self) -> None:
        if not self.host:
            raise ValueError("host must not be empty: 127.0.0.1 for this machine only, 0.0.0.0 for all interfaces")
        if not 0 <= self.port < 2**16:
            raise ValueError(f"port must lie in [0, 65535], got {self.port}")
        if self.token is not None and not (self.token and all("!" <= letter <= "~" for letter in self.token)):
            raise ValueError("token must be printable ASCII without spaces: use letters and digits, or null for none")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"seed must lie in [0, 2**63), got {self.seed}")
        for name in ("num_steps", "max_batch", "max_connections", "max_message_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("request_timeout_s", "client_timeout_s"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be a positive number of seconds, got {getattr(self, name)}")

    @property
    def warning(self) -> str | None:
        """What the user should know about who can reach the server, if anything."""
        if self.token is not None or _is_loopback(self.host):
            return None
        return (
            f"everybody who reaches {self.host}:{self.port} over the network can use this policy: "
            "give a token, or host=127.0.0.1"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
