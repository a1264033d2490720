"""A server that all tests of a file share."""

import pytest
from serving import LIMIT_S, connected, serving


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture
def talk(server):
    """Send bytes on one connection and receive the answers; the metadata have been read."""
    with connected(server) as socket_:
        socket_.recv(timeout=LIMIT_S)

        def ask(message):
            socket_.send(message)
            return socket_.recv(timeout=LIMIT_S)

        yield ask
