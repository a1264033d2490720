"""Rollouts with latency: none is the ordinary evaluation, and more is what can be counted on fingers."""

from functools import partial

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from small_policy import small_policy

from shortcut_policy.agent import PolicyAgent
from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.evaluation import evaluate
from shortcut_policy.realtime.delayed_horizon import DelayedHorizon, ticks_of_latency


class Recording(gymnasium.Env):
    """Observes the position that actions lead to, rewards nearness to a point; keeps all actions in `played`."""

    def __init__(self, played):
        self.played = played
        self.observation_space = Dict(position=Box(-np.inf, np.inf, (2,)), angle=Box(-np.inf, np.inf, (1,)))
        self.action_space = Box(-np.inf, np.inf, (2,))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.left = seed, 12 + seed % 3
        self.position = self.np_random.uniform(0, 512, 2)
        return self.observe(), {}

    def step(self, action):
        self.played.setdefault(self.seed, []).append(action.tolist())
        self.position = 0.5 * self.position + 0.5 * action
        self.left -= 1
        return self.observe(), float(np.exp(-np.abs(self.position - 300).mean() / 99)), False, self.left == 0, {}

    def observe(self):
        angle = np.sin(self.position[:1] / 50)
        return {"position": self.position.astype(np.float32), "angle": angle.astype(np.float32)}


def roll_out(queue, num_envs=3):
    played = {}
    agent = PolicyAgent(small_policy(), 4, 2, queue)
    evaluation = evaluate(agent, partial(Recording, played), episodes=7, slots=4, num_envs=num_envs)
    return evaluation, played


def test_without_latency_it_is_the_ordinary_evaluation_to_the_last_bit():
    evaluation, played = roll_out(None)
    delayed, again = roll_out(DelayedHorizon(2, 3, 0))
    assert delayed == evaluation
    assert again == played
    assert len(set(evaluation.scores)) == 7  # else equality would show little


def test_with_latency_a_score_does_not_depend_on_how_many_run_at_once_either():
    evaluation, played = roll_out(DelayedHorizon(2, 3, 2))
    assert roll_out(DelayedHorizon(2, 3, 2), num_envs=1) == (evaluation, played)
    assert played != roll_out(None)[1]


def chunk_of(history):
    """Action k of the chunk of observation o is (o, k, o + k)."""
    newest = history["o"][:, -1]  # (B, 1)
    k = torch.arange(6.0).expand(len(newest), 6)
    return torch.stack([newest.expand(-1, 6), k, newest + k], dim=-1)


def play(queue, ticks, histories=None):
    actions = []
    for tick in range(ticks):

        def sample(history, needed):
            if histories is not None:
                histories.append(history["o"][0].flatten().tolist())
            return chunk_of(history)

        actions.append(tuple(queue.act({"o": torch.tensor([[float(tick)]])}, sample)[0, :2].int().tolist()))
    return actions


@pytest.mark.parametrize(
    ("latency", "expected"),
    [
        (0, "00 01 02 30 31 32 60 61 62 90 91 92"),
        (1, "00 01 02 03 31 32 33 61 62 63 91 92"),
        (3, "00 01 02 03 04 05 33 34 35 63 64 65"),
        (5, "00 01 02 03 04 05 05 05 35 35 35 35"),  # 3: there at 8 for 8; 8: there at 13; between, 35 is held
    ],
)
def test_chunks_take_effect_after_the_latency_and_the_last_goal_is_held(latency, expected):
    assert play(DelayedHorizon(1, 3, latency), 12) == [tuple(map(int, word)) for word in expected.split()]


def test_a_slow_policy_is_asked_with_the_newest_observations_as_soon_as_it_is_free():
    histories = []
    play(DelayedHorizon(2, 3, 5), 14, histories)
    assert histories == [[0, 0], [2, 3], [7, 8], [12, 13]]


def test_steps_are_not_repeated_past_the_end():
    queue = DelayedHorizon(1, 3, 9, codec=ActionCodec("delta_pose"))
    chunk = torch.arange(1.0, 5.0)[:, None].expand(1, 4, 7)
    actions = [queue.act({"o": torch.zeros(1, 1)}, lambda history, needed: chunk)[0].tolist() for _ in range(6)]
    assert actions == [*([n] * 7 for n in (1, 2, 3, 4)), [0] * 6 + [4], [0] * 6 + [4]]


def test_slots_have_clocks_of_their_own():
    queue = DelayedHorizon(1, 3, 1)
    asked = []

    def sample(history, needed):
        asked.append(needed.tolist())
        return chunk_of(history)

    def act(*observed):
        actions = queue.act({"o": torch.tensor(observed)[:, None]}, sample)
        return [tuple(action) for action in actions[:, :2].int().tolist()]

    assert [act(0.0, 100.0), act(1.0, 101.0)] == [[(0, 0), (100, 0)], [(0, 1), (100, 1)]]
    queue.reset(torch.tensor([False, True]))
    assert [act(2.0, 200.0), act(3.0, 201.0), act(4.0, 202.0)] == [
        [(0, 2), (200, 0)],
        [(0, 3), (200, 1)],
        [(3, 1), (200, 2)],
    ]
    assert asked == [[True, True], [False, True], [True, False]]
    queue.reset()
    assert len(act(0.0)) == 1


def test_latency_is_rounded_up_to_ticks():
    cases = [
        (0, 10, 0),
        (0.1, 10, 1),
        (100, 10, 1),
        (100.1, 10, 2),
        (500, 10, 5),
        (50, 20, 1),
        (500, 20, 10),
        (300, 10, 3),
    ]
    assert [ticks_of_latency(latency, rate) for latency, rate, _ in cases] == [ticks for *_, ticks in cases]
    with pytest.raises(ValueError, match=r"latency_ms must be 0 or more and finite, got -1"):
        ticks_of_latency(-1, 10)
    with pytest.raises(ValueError, match="rate_hz must be positive, got 0"):
        ticks_of_latency(10, 0)
    with pytest.raises(ValueError, match="latency_ticks must be 0 or more, got -1"):
        DelayedHorizon(1, 1, -1)
