"""Actions that are committed already, sent to the server beside an observation."""

import numpy as np
import pytest
import torch
from serving import LIMIT_S, connected, observation, packed, serving, stacked, unpacked
from small_policy import small_policy

from shortcut_policy.realtime.client import PolicyClient, PolicyServerError
from shortcut_policy.realtime.padded_sampler import PaddedSampler, SampleRequest
from shortcut_policy.realtime.requests import RequestSpec, parse_request

COMMITTED = np.array([[120.0, 210.0], [130.0, 220.0]], np.float32)
MOST = 3


def test_an_answer_begins_with_what_is_committed_and_is_what_the_policy_samples():
    policy = small_policy(prefix_steps=MOST)
    with serving(policy) as server, PolicyClient(port=server.port, timeout=LIMIT_S) as client:
        assert client.metadata["prefix_steps"] == MOST
        free = client.infer(observation(1))["actions"]
        client.reset(seed=0)
        bound = client.infer(observation(1), committed=COMMITTED)["actions"]
    np.testing.assert_array_equal(bound[:2], COMMITTED)
    assert not np.allclose(free[2:], bound[2:], rtol=1e-4), "what is known changes the rest"
    history = {key: torch.from_numpy(value[None]) for key, value in stacked(observation(1), observation(1)).items()}
    noise = torch.randn(1, *policy.chunk_shape, generator=torch.Generator().manual_seed(0))
    known = {"known_actions": torch.from_numpy(COMMITTED[None])}
    np.testing.assert_allclose(bound, policy.sample(history, noise=noise, **known)[0], rtol=1e-5)
    np.testing.assert_allclose(free, policy.sample(history, noise=noise)[0], rtol=1e-5)


def test_every_row_of_a_batch_has_its_own_committed_actions():
    policy = small_policy(prefix_steps=MOST)
    sampler = PaddedSampler(policy, num_steps=1, rows=4)
    noise = torch.randn(1, *policy.chunk_shape, generator=torch.Generator().manual_seed(0))
    history = stacked(observation(1), observation(1))
    given = [None, COMMITTED, COMMITTED[:1]]
    together = sampler([SampleRequest(history, noise, committed) for committed in given])
    for chunk, committed in zip(together, given, strict=True):
        np.testing.assert_allclose(chunk, sampler([SampleRequest(history, noise, committed)])[0], rtol=1e-5)
        if committed is not None:
            np.testing.assert_array_equal(chunk[: len(committed)], committed)


@pytest.mark.parametrize(
    ("committed", "quoted"),
    [
        (np.zeros((4, 2)), "k from 1 to prefix_steps=3, got (4, 2)"),
        (np.zeros((0, 2)), "got (0, 2)"),
        (np.zeros((2, 3)), "must have shape (k, 2)"),
        (np.zeros(2), "got (2,)"),
        ([[0.0, 0.0]], "committed must be a numpy array, got list"),
        (np.array([[0.0, np.nan]]), "committed must be finite, got nan at (0, 1)"),
    ],
)
def test_committed_actions_that_do_not_fit_are_quoted(committed, quoted):
    spec = RequestSpec({"position": (2,), "angle": (1,)}, steps=2, prefix_steps=MOST, action_dim=2)
    with pytest.raises(ValueError) as error:
        parse_request({**observation(), "committed": committed}, spec)
    assert quoted in str(error.value)


def test_a_policy_without_prefix_conditioning_says_so_and_goes_on():
    with serving() as server, PolicyClient(port=server.port, timeout=LIMIT_S) as client:
        with pytest.raises(PolicyServerError, match="trained with prefix_steps=0"):
            client.infer(observation(), committed=COMMITTED)
        assert client.infer(observation())["actions"].shape == (8, 2)


def test_a_reset_with_committed_actions_and_no_observation_is_refused():
    with serving(small_policy(prefix_steps=MOST)) as server, connected(server) as wire:
        wire.recv(timeout=LIMIT_S)
        wire.send(packed({"reset": True, "committed": COMMITTED}))
        assert "'position' is missing" in wire.recv(timeout=LIMIT_S)
        wire.send(packed({**observation(), "reset": True, "committed": COMMITTED}))
        np.testing.assert_array_equal(unpacked(wire.recv(timeout=LIMIT_S))["actions"][:2], COMMITTED)
