"""Clients that are wrong, slow, gone, or too many: they hear of it, and the others do not."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import msgpack
import numpy as np
import pytest
import torch
from serving import LIMIT_S, ask_again, connected, expected, observation, packed, serving, stacked, unpacked
from small_policy import small_policy
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.protocol import State

WRONG = [
    (b"\xc1\xff", "cannot be read"),
    (b"", "cannot be read"),
    (packed(observation())[:-3], "cannot be read"),
    ("text", "binary"),
    (msgpack.packb([1, 2]), "got list"),
    (msgpack.packb({}), "'position' is missing"),
    (packed({"position": np.zeros(2, np.float32)}), "'angle' is missing"),
    (packed(observation(gripper=np.zeros(1))), "'gripper' is not one of the policy's"),
    (packed(observation(**{"p" * 5000: np.zeros(1)})), "is not one of the policy's"),
    (packed({**observation(), b"angle": np.zeros(1)}), "b'angle'"),
    (packed(observation(angle=np.zeros(2, np.float32))), "got (2,)"),
    (packed(observation(angle=np.zeros((2, 1), np.float32))), "got (2, 1)"),
    (packed(observation(position=np.zeros((3, 2), np.float32))), "got (3, 2)"),
    (packed(observation(position=np.zeros((1, 2, 2), np.float32))), "got (1, 2, 2)"),
    (packed(observation(angle=0.5)), "got float"),
    (packed(observation(angle=[0.5])), "got list"),
    (packed(observation(angle=np.array([np.nan]))), "got nan at (0,)"),
    (packed(observation(angle=np.array([1e300]))), "got 1e+300 at (0,)"),
    (packed(observation(angle=np.array([object()]))), "'|O'"),
    (packed({"reset": 1}), "got 1"),
    (packed({"reset": True, "seed": -1}), "got -1"),
    (packed({"reset": True, "seed": True}), "got True"),
    (packed({**observation(), "seed": 1}), "beside reset=true"),
]


@pytest.mark.parametrize(("message", "quoted"), WRONG, ids=range(len(WRONG)))
def test_a_wrong_message_gets_a_sentence_and_the_connection_lives_on(talk, message, quoted):
    talk(packed(observation(1)))
    answer = talk(message)
    assert isinstance(answer, str), "as openpi's client expects an error"
    assert quoted in answer
    assert len(answer) < 400
    after = unpacked(talk(packed(observation(2))))["actions"]
    o = [observation(1), observation(2)]
    want = expected(small_policy(), [stacked(o[0], o[0]), stacked(*o)])
    np.testing.assert_allclose(after, want[1], rtol=1e-5, err_msg="it changed neither history nor noise")


def test_fifty_clients_at_once_get_each_their_own_answer():
    policy, batches, sample = small_policy(), [], small_policy().sample
    policy.sample = lambda observation, steps, **noise: (
        batches.append(int(observation["position"].any(-1).any(-1).sum())),
        sample(observation, steps, **noise),
    )[1]
    everybody = threading.Barrier(50, timeout=LIMIT_S)
    asked = 4

    def robot(number):
        """Its answers; every seventh also sends garbage in between."""
        with connected(server) as wire:
            wire.recv(timeout=LIMIT_S)
            everybody.wait()
            answers = []
            for step in range(asked):
                if number % 7 == 0:
                    wire.send(WRONG[(number + step) % len(WRONG)][0])
                    assert isinstance(wire.recv(timeout=LIMIT_S), str)
                wire.send(packed(observation(number + 0.1 * step)))
                answers.append(unpacked(wire.recv(timeout=LIMIT_S))["actions"])
            return answers

    with serving(policy, max_batch=8, max_connections=50) as server, ThreadPoolExecutor(50) as robots:
        answers = list(robots.map(robot, range(1, 51)))
    assert sum(batches) == 50 * asked, "every good request was in one batch; the first batch of all warms up"
    assert max(batches) > 1, "some were answered together"
    for number, got in enumerate(answers, start=1):
        o = [observation(number + 0.1 * step) for step in range(asked)]
        histories = [stacked(o[max(0, step - 1)], o[step]) for step in range(asked)]
        want = expected(policy, histories, rows=8)
        np.testing.assert_allclose(got, want, rtol=1e-5)


@pytest.mark.parametrize("rude", ["close", "reset", "half a message"])
def test_clients_that_vanish_disturb_nobody(rude):
    policy, sample, working, go = small_policy(), small_policy().sample, threading.Event(), threading.Event()
    go.set()

    def slow(*arguments, **options):
        working.set()
        assert go.wait(LIMIT_S)
        return sample(*arguments, **options)

    policy.sample = slow
    with serving(policy, max_connections=2) as server:
        working.clear()
        go.clear()
        with connected(server) as wire:
            wire.recv(timeout=LIMIT_S)
            data = packed(observation())
            if rude == "half a message":
                wire.socket.sendall(b"\x82\xfe\x10\x00half of it")
            else:
                wire.send(data)
                assert working.wait(LIMIT_S), "it vanishes while its request is being worked on"
            if rude == "reset":
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            wire.socket.shutdown(socket.SHUT_RDWR)
            wire.socket.close()
        with connected(server) as other:
            other.recv(timeout=LIMIT_S)
            other.send(packed(observation(2)))
            go.set()
            assert unpacked(other.recv(timeout=LIMIT_S))["actions"].shape == (8, 2)
        for _ in range(3):  # its place is free again
            with connected_when_possible(server) as one, connected_when_possible(server) as two:
                for wire in (one, two):
                    wire.send(packed(observation()))
                    assert unpacked(wire.recv(timeout=LIMIT_S))["actions"].shape == (8, 2)


def connected_when_possible(server):
    """A connection, its metadata read; a server forgets a client that left a moment later."""
    until = time.monotonic() + LIMIT_S
    while True:
        wire = connected(server).__enter__()
        try:
            wire.recv(timeout=LIMIT_S)
            return wire
        except ConnectionClosed:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_one_client_too_many_is_told_so():
    with serving(max_connections=1) as server, connected(server) as first:
        first.recv(timeout=LIMIT_S)
        with connected(server) as second, pytest.raises(ConnectionClosedError, match="1 clients are connected"):
            second.recv(timeout=LIMIT_S)
        first.send(packed(observation()))
        assert unpacked(first.recv(timeout=LIMIT_S))["actions"].shape == (8, 2)


def test_a_message_that_is_too_large_ends_its_connection_only():
    with serving(max_message_bytes=2000) as server, connected(server) as good, connected(server) as bad:
        for wire in (good, bad):
            wire.recv(timeout=LIMIT_S)
        bad.send(packed(observation(angle=np.zeros(300))))
        with pytest.raises(ConnectionClosedError) as caught:
            bad.recv(timeout=LIMIT_S)
        assert caught.value.rcvd.code == 1009
        good.send(packed(observation()))
        assert unpacked(good.recv(timeout=LIMIT_S))["actions"].shape == (8, 2)


@pytest.mark.parametrize("slow", ["within a frame", "silent"])
def test_a_client_that_stops_in_the_middle_loses_its_connection(slow):
    with serving(client_timeout_s=1.0) as server:
        wire = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)
        if slow != "silent":
            wire.sendall(
                b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
            )
            assert b"101 Switching" in wire.recv(200)
            wire.sendall(b"\x82\xfe\x10\0\0\0\0\0some")  # of a frame of 4096 bytes
        with wire, suppress(ConnectionResetError):
            while wire.recv(65536):  # metadata and pings, then the end; without one this times out
                pass


def test_a_client_that_stops_between_fragments_loses_its_connection_though_it_answers_pings():
    with serving(client_timeout_s=1.0) as server, connected(server) as wire:
        wire.recv(timeout=LIMIT_S)

        def fragments():
            yield packed(observation())[:10]
            until = time.monotonic() + LIMIT_S
            while wire.state is State.OPEN:
                assert time.monotonic() < until, "it must be disconnected"
                time.sleep(0.02)
            yield packed(observation())[10:]

        with pytest.raises(ConnectionClosed):
            wire.send(fragments())


def test_a_client_that_takes_no_answers_loses_its_connection_and_holds_up_nobody():
    policy = small_policy()
    policy.sample = lambda observation, steps, **noise: torch.zeros(len(observation["angle"]), 1_000_000, 2)
    with serving(policy, client_timeout_s=1.0) as server:
        wire = socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S)
        wire.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
        )
        data = packed(observation())
        wire.sendall((b"\x82\xfe" + len(data).to_bytes(2, "big") + b"\0\0\0\0" + data) * 4)
        with connected(server, max_size=None) as other:
            other.recv(timeout=LIMIT_S)
            other.send(data)
            assert unpacked(other.recv(timeout=LIMIT_S))["actions"].shape == (1_000_000, 2)
        until = time.monotonic() + LIMIT_S
        while len(server._clients) > 0:
            assert time.monotonic() < until, "it must be disconnected"
            time.sleep(0.02)
        wire.close()


def test_a_request_that_takes_too_long_gets_an_error():
    policy, sample, go = small_policy(), small_policy().sample, threading.Event()
    go.set()
    policy.sample = lambda *arguments, **options: go.wait(LIMIT_S) and sample(*arguments, **options)
    with serving(policy, request_timeout_s=0.2) as server, connected(server) as wire:
        wire.recv(timeout=LIMIT_S)
        go.clear()
        wire.send(packed(observation()))
        assert "no answer within 0.2 s" in wire.recv(timeout=LIMIT_S)
        go.set()
        until = time.monotonic() + LIMIT_S
        while isinstance(answer := ask_again(wire), str):
            assert time.monotonic() < until
        assert unpacked(answer)["actions"].shape == (8, 2)


def test_a_policy_that_fails_or_gives_nonsense_is_reported():
    policy, sample, outcomes = small_policy(), small_policy().sample, []
    policy.sample = lambda *arguments, **options: (outcomes.pop() if outcomes else sample)(*arguments, **options)
    with serving(policy) as server, connected(server) as wire:
        wire.recv(timeout=LIMIT_S)
        outcomes[:] = [
            lambda *arguments, **options: torch.full((4, 8, 2), torch.nan),
            lambda *arguments, **options: 1 / 0,
        ]
        assert "the policy failed: division by zero" in ask_again(wire)
        assert "actions are not finite" in ask_again(wire)
        assert unpacked(ask_again(wire))["actions"].shape == (8, 2)


def test_garbage_instead_of_http_disturbs_nobody(server):
    for garbage in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\n\r\n", b"\0" * 70_000):
        with socket.create_connection(("127.0.0.1", server.port), timeout=LIMIT_S) as wire:
            wire.sendall(garbage)
            wire.shutdown(socket.SHUT_WR)
    with connected(server) as wire:
        wire.recv(timeout=LIMIT_S)
        assert unpacked(ask_again(wire))["actions"].shape == (8, 2)


def test_stopping_does_not_wait_long_for_somebody_who_says_nothing():
    with serving(client_timeout_s=100 * LIMIT_S) as server:
        silent = socket.create_connection(("127.0.0.1", server.port))
        with connected(server) as wire:
            wire.recv(timeout=LIMIT_S)
    silent.close()
