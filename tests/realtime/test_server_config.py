"""How a policy is served: what cannot be, and what the user is warned of."""

import pytest
from serving import serving

from shortcut_policy.realtime.server_config import ServerConfig


def test_the_network_is_warned_of(caplog):
    for config in ({}, {"host": "::1"}, {"host": "localhost"}, {"host": "0.0.0.0", "token": "x"}):
        assert ServerConfig(**config).warning is None
    for host in ("0.0.0.0", "::", "192.168.1.5", "robot.local"):
        assert host in ServerConfig(host=host).warning
    with serving(host="0.0.0.0"):
        assert "everybody who reaches 0.0.0.0" in caplog.text


@pytest.mark.parametrize(
    ("values", "quoted"),
    [
        ({"host": ""}, "127.0.0.1"),
        ({"port": 70_000}, "70000"),
        ({"port": -1}, "-1"),
        ({"token": ""}, "token"),
        ({"token": "two words"}, "token"),
        ({"token": "ümlaut"}, "token"),
        ({"seed": -1}, "-1"),
        ({"num_steps": 0}, "num_steps must be positive, got 0"),
        ({"max_batch": 0}, "max_batch"),
        ({"max_connections": 0}, "max_connections"),
        ({"max_message_bytes": 0}, "max_message_bytes"),
        ({"request_timeout_s": 0.0}, "request_timeout_s"),
        ({"client_timeout_s": float("nan")}, "nan"),
    ],
)
def test_impossible_values_are_quoted(values, quoted):
    with pytest.raises(ValueError, match="must") as caught:
        ServerConfig(**values)
    assert quoted in str(caught.value)


def test_the_token_is_not_shown():
    assert "s3cret" not in repr(ServerConfig(token="s3cret"))
