import numpy as np
import pytest
import torch
from small_policy import small_policy

from shortcut_policy.agent import PolicyAgent

SLOTS = 4


def episode(policy, seeds, observations, num_steps=2):
    """The actions (steps, slots, A) of an agent that sees `observations` step by step."""
    agent = PolicyAgent(policy, SLOTS, num_steps)
    agent.reset(seeds)
    steps = len(observations["angle"])
    return np.stack([agent.act({key: value[step] for key, value in observations.items()}) for step in range(steps)])


@pytest.fixture
def observations():
    rng = np.random.default_rng(0)
    return {"angle": rng.uniform(-3, 3, (7, SLOTS, 1)), "position": rng.uniform(0, 512, (7, SLOTS, 2))}


@pytest.mark.parametrize("slot", range(SLOTS))
def test_an_episode_does_not_depend_on_the_other_slots(observations, slot):
    policy = small_policy()
    busy = episode(policy, [10, 11, 12, 13], observations)
    alone = {key: np.where(np.arange(SLOTS)[:, None] == slot, value, 0.0) for key, value in observations.items()}
    seeds = [10 + slot if index == slot else None for index in range(SLOTS)]
    assert np.array_equal(episode(policy, seeds, alone)[:, slot], busy[:, slot])


def test_an_agent_can_be_used_again_and_begins_every_episode_alike(observations):
    policy = small_policy()
    agent = PolicyAgent(policy, SLOTS, num_steps=1)
    first = {key: value[0] for key, value in observations.items()}
    runs = []
    for seeds in ([1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 9]):
        agent.reset(seeds)
        runs.append(np.stack([agent.act(first) for _ in range(4)]))
    assert np.array_equal(runs[0], runs[1])
    assert np.array_equal(runs[0][:, :3], runs[2][:, :3])
    assert not np.array_equal(runs[0][:, 3], runs[2][:, 3])


@pytest.mark.parametrize("num_steps", [1, 4])
def test_noise_is_that_of_the_episodes_seed_whatever_the_number_of_steps(observations, monkeypatch, num_steps):
    policy, seen = small_policy(), []
    sample = policy.sample

    def recorded(history, steps, *, noise, **rest):
        assert steps == num_steps
        seen.append(noise.clone())
        return sample(history, steps, noise=noise)

    monkeypatch.setattr(policy, "sample", recorded)
    episode(policy, [7, None, 8, None], observations, num_steps)
    assert len(seen) == 3, "seven steps of chunks of which three actions are executed"
    for slot, seed in ((0, 7), (2, 8)):
        generator = torch.Generator().manual_seed(seed)
        for noise in seen:
            assert torch.equal(noise[slot], torch.randn(8, 2, generator=generator))
    assert not any(noise[[1, 3]].any() for noise in seen)


def test_a_missing_observation_is_named():
    agent = PolicyAgent(small_policy(), SLOTS, num_steps=1)
    agent.reset([0] * SLOTS)
    with pytest.raises(ValueError, match="no observation 'angle': it has position, velocity"):
        agent.act({"position": np.zeros((SLOTS, 2)), "velocity": np.zeros((SLOTS, 2))})


def test_there_is_one_seed_per_slot():
    with pytest.raises(ValueError, match="expected 4 seeds, one per slot, got 3"):
        PolicyAgent(small_policy(), SLOTS, num_steps=1).reset([0, 1, 2])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_observation_that_is_not_finite_is_refused(observations, value):
    agent = PolicyAgent(small_policy(), SLOTS, num_steps=1)
    agent.reset([0] * SLOTS)
    first = {key: array[0] for key, array in observations.items()}
    first["position"][2, 1] = value
    with pytest.raises(ValueError, match="observation 'position' is NaN or infinite in slot 2"):
        agent.act(first)
