"""The server over real sockets: what it answers, to whom, and how it stops."""

import http.client
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from serving import LIMIT_S, ask_again, connected, expected, observation, packed, serving, stacked, unpacked
from small_policy import demonstrations, small_policy
from test_image_policy import seeing_policy
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from shortcut_policy.agent import PolicyAgent
from shortcut_policy.realtime.padded_sampler import PaddedSampler, SampleRequest
from shortcut_policy.realtime.server import PolicyServer
from shortcut_policy.realtime.server_config import ServerConfig


def test_openpis_bytes_are_understood(server):
    """As its client does: metadata first, then one answer for every single observation."""
    with connected(server) as wire:
        metadata = unpacked(wire.recv(timeout=LIMIT_S))
        assert metadata["observation_shapes"] == {"position": [2], "angle": [1]}
        assert (metadata["observation_steps"], metadata["horizon"], metadata["action_dim"]) == (2, 8, 2)
        assert (metadata["action_steps"], metadata["num_steps"]) == (3, 1)
        o = [observation(i) for i in range(3)]
        answers = []
        for one in o:
            wire.send(packed(one))
            answers.append(unpacked(wire.recv(timeout=LIMIT_S)))
    want = expected(small_policy(), [stacked(o[0], o[0]), stacked(o[0], o[1]), stacked(o[1], o[2])])
    for answer, chunk in zip(answers, want, strict=True):
        np.testing.assert_allclose(answer["actions"], chunk, rtol=1e-5)
        assert answer["actions"].dtype == np.float32
        assert answer["server_timing"]["infer_ms"] > 0
    assert "prev_total_ms" not in answers[0]["server_timing"]
    assert answers[1]["server_timing"]["prev_total_ms"] > 0
    assert not np.allclose(answers[0]["actions"], answers[1]["actions"])


def test_a_whole_history_replaces_what_the_server_remembers(talk):
    o = [observation(i) for i in (5, 9, 11, 12)]
    talk(packed(o[0]))
    second = unpacked(talk(packed(stacked(o[1], o[2]))))["actions"]
    third = unpacked(talk(packed(o[3])))["actions"]
    want = expected(small_policy(), [stacked(o[0], o[0]), stacked(o[1], o[2]), stacked(o[2], o[3])])
    np.testing.assert_allclose(second, want[1], rtol=1e-5)
    np.testing.assert_allclose(third, want[2], rtol=1e-5)


def test_a_reset_forgets_observations_and_its_seed_gives_the_noise(talk):
    first = unpacked(talk(packed(observation(1))))["actions"]
    unpacked(talk(packed(observation(30))))
    assert unpacked(talk(packed({"reset": True}))) == {"reset": True}
    unseeded = unpacked(talk(packed(observation(1))))["actions"]
    assert not np.allclose(unseeded, first), "the noise goes on where no seed is given"
    talk(packed(observation(30)))
    assert unpacked(talk(packed({"reset": True, "seed": 0}))) == {"reset": True}
    np.testing.assert_array_equal(unpacked(talk(packed(observation(1))))["actions"], first)
    talk(packed(observation(30)))
    together = unpacked(talk(packed({**observation(1), "reset": True, "seed": 0})))["actions"]
    np.testing.assert_array_equal(together, first)


def test_an_episode_with_a_seed_is_that_of_an_evaluation(talk):
    policy = small_policy()
    agent = PolicyAgent(policy, slots=4, num_steps=1)
    agent.reset([100_003, None, None, None])
    talk(packed({"reset": True, "seed": 100_003}))
    history = []
    for step in range(7):
        history = [*(history or [observation(step)]), observation(step)][-2:]
        if step % policy.config.action_steps == 0:  # a robot that asks once per chunk
            chunk = unpacked(talk(packed(stacked(*history))))["actions"]
        rows = {key: np.stack([value, *[0 * value] * 3]) for key, value in observation(step).items()}
        action = agent.act(rows)[0]
        np.testing.assert_array_equal(chunk[step % policy.config.action_steps], action)


def test_images_are_bytes_as_the_camera_gives_them():
    policy, rng = seeing_policy(), np.random.default_rng(0)
    seen = [
        observation(
            step,
            front=rng.integers(256, size=(10, 20, 3), dtype=np.uint8),
            wrist=rng.integers(256, size=(8, 8, 1), dtype=np.uint8),
        )
        for step in range(2)
    ]
    with serving(policy) as server, connected(server) as wire:
        metadata = unpacked(wire.recv(timeout=LIMIT_S))
        assert metadata["images"] == ["front", "wrist"]
        assert metadata["observation_shapes"]["front"] == [10, 20, 3]
        answers = [unpacked(ask_again(wire, seen[0]))["actions"]]
        floats = {**seen[1], "front": np.zeros((10, 20, 3), np.float32)}
        assert "image 'front' must be uint8 in 0 ... 255, got float32" in ask_again(wire, floats)
        channels_first = {**seen[1], "front": np.zeros((3, 10, 20), np.uint8)}
        assert "(10, 20, 3) (the newest)" in ask_again(wire, channels_first)
        answers.append(unpacked(ask_again(wire, seen[1]))["actions"])
    first, second = stacked(seen[0], seen[0]), stacked(*seen)
    want = expected(policy, [first, second])
    np.testing.assert_allclose(answers, want, rtol=1e-5)
    blind = expected(policy, [first, {**second, "front": 0 * second["front"]}])
    assert not np.allclose(blind[1], want[1], rtol=1e-3), "the image counts"


def test_an_answer_does_not_depend_on_who_else_is_in_the_batch():
    """Bit by bit where it has the same row; to rounding in another."""
    policy = small_policy()
    with serving(policy) as server, connected(server) as wire:
        wire.recv(timeout=LIMIT_S)
        alone = unpacked(ask_again(wire, observation(1)))["actions"]
    noise = torch.randn(1, *policy.chunk_shape, generator=torch.Generator().manual_seed(0))
    sampler = PaddedSampler(policy, num_steps=1, rows=4)
    mine = SampleRequest(stacked(observation(1), observation(1)), noise)
    for number in range(6):
        other = stacked(observation(5 * number), observation(100))
        requests = [SampleRequest(other, noise * number)] * 3
        np.testing.assert_array_equal(sampler([mine, *requests])[0], alone)
        np.testing.assert_array_equal(sampler([mine])[0], alone)
        for row in range(1, 4):
            chunk = sampler([*requests[:row], mine, *requests[row:]])[row]
            np.testing.assert_allclose(chunk, alone, rtol=1e-5)


def test_health_and_token():
    with serving(token="s3cret") as server:
        web = http.client.HTTPConnection("127.0.0.1", server.port, timeout=LIMIT_S)
        web.request("GET", "/healthz")
        answer = web.getresponse()
        assert (answer.status, answer.read()) == (200, b"OK\n")
        headers = ["Api-Key s3cret2", "Api-Key s3cre", "s3cret", "Bearer s3cret", "api-key s3cret", "Api-Key é"]
        for wrong in [None, *[{"Authorization": header} for header in headers]]:
            with pytest.raises(InvalidStatus) as caught, connected(server, additional_headers=wrong):
                pass
            assert caught.value.response.status_code == 401
        with connected(server, additional_headers={"Authorization": "Api-Key s3cret"}) as wire:
            assert unpacked(wire.recv(timeout=LIMIT_S))["server"] == "shortcut-policy"


def test_a_web_page_cannot_reach_the_robot(server):
    with pytest.raises(InvalidStatus) as caught, connected(server, origin="http://example.com"):
        pass
    assert caught.value.response.status_code == 403


def test_stopping_answers_what_is_being_worked_on_and_says_goodbye():
    policy, sample, working, go = small_policy(), small_policy().sample, threading.Event(), threading.Event()
    go.set()

    def slow(*arguments, **options):
        working.set()
        assert go.wait(LIMIT_S)
        return sample(*arguments, **options)

    policy.sample = slow
    with serving(policy) as server:
        idle, busy = connected(server).__enter__(), connected(server).__enter__()
        for wire in (idle, busy):
            wire.recv(timeout=LIMIT_S)
        working.clear()
        go.clear()
        busy.send(packed(observation()))
        assert working.wait(LIMIT_S)
        threading.Timer(0.3, go.set).start()  # until then the server waits
    assert unpacked(busy.recv(timeout=LIMIT_S))["actions"].shape == (8, 2)
    for wire in (idle, busy):
        with pytest.raises(ConnectionClosed):
            wire.recv(timeout=LIMIT_S)
    with pytest.raises(OSError), connect(f"ws://127.0.0.1:{server.port}", open_timeout=LIMIT_S, proxy=None):
        pass


def test_an_address_that_is_taken_is_a_sentence(server):
    sentence = f"cannot listen on 127.0.0.1:{server.port} .*: choose another"
    with pytest.raises(ValueError, match=sentence), serving(port=server.port):
        pass


def test_a_policy_whose_observation_is_named_like_an_option_cannot_be_served():
    names = {"position": "position", "angle": "reset"}
    episodes = demonstrations()
    renamed = {names[key]: value for key, value in episodes.observations.items()}
    policy = small_policy(episodes=replace(episodes, observations=renamed))
    with pytest.raises(ValueError, match="'reset' cannot be served"):
        PolicyServer(policy, ServerConfig())
