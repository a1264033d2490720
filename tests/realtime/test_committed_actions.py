"""What the robot executes while it waits goes with the request: on a simulated clock, and in rollouts with latency."""

import sys
from dataclasses import replace

import cloudpickle
import numpy as np
import pytest
import torch
from small_policy import small_policy
from test_control_loop import CONFIG, Rig

from shortcut_policy.agent import PolicyAgent
from shortcut_policy.policy_config import PolicyConfig
from shortcut_policy.realtime.action_schedule import ActionSchedule
from shortcut_policy.realtime.clock import MonotonicClock
from shortcut_policy.realtime.control_loop import ControlLoop
from shortcut_policy.realtime.delayed_horizon import DelayedHorizon
from shortcut_policy.realtime.loop_config import LoopConfig
from shortcut_policy.realtime.safety import SafetyConfig
from shortcut_policy.realtime.sampling import ThreadSampler, chunk_function
from shortcut_policy.realtime.sampling_process import SamplingProcess

# The process cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

PREFIX = replace(CONFIG, prefix_ticks=2)  # a chunk every three ticks


class Continuing:
    """Action k of the chunk for the n-th observation is (n, k), after the committed ones."""

    def __init__(self, horizon=8):
        self.horizon, self.committed = horizon, []

    def __call__(self, history, committed=None):
        chunk = np.array([(history["count"][-1, 0], k) for k in range(self.horizon)], np.float32)
        self.committed.append(None if committed is None else [tuple(action) for action in committed.tolist()])
        if committed is not None:
            chunk[: len(committed)] = committed
        return chunk


def test_a_schedule_looks_ahead_as_far_as_its_chunks_reach():
    schedule = ActionSchedule()
    assert schedule.committed(0, 3) is None
    schedule.add(0, np.arange(6.0)[:, None])
    assert schedule.committed(3, 2).tolist() == [[3], [4]]
    assert schedule.committed(4, 5).tolist() == [[4], [5]]
    assert schedule.committed(4, 0) is None
    assert schedule.committed(6, 2) is None
    schedule.add(4, 10 * np.arange(6.0)[:, None])
    assert schedule.committed(4, 3).tolist() == [[0], [10], [20]], "the newest chunk decides"


def test_the_loop_gives_the_actions_of_the_ticks_from_the_observation_on():
    rig = Rig(PREFIX, policy=Continuing())
    report = rig.run(9)
    assert rig.policy.committed == [None, [(0, 3), (0, 4)], [(3, 3), (3, 4)]], "the first chunk is awaited at rest"
    # tick 3 is made with the old chunk, tick 4 with the new one, which begins as the old one goes on
    assert rig.actions == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (3, 2), (3, 3), (3, 4), (6, 2)]
    assert report.stale_actions == 2


def test_a_schedule_that_ends_before_commits_what_it_has():
    rig = Rig(replace(PREFIX, prefix_ticks=3), policy=Continuing(5), periods=(0.5, 0.5, 2.5, 0.5))
    rig.run(13)
    # the chunk of tick 6 is there at 9, for which 3's last action was (3, 4) at 7, and nothing at 8
    assert rig.policy.committed == [None, [(0, 3), (0, 4)], [(3, 3), (3, 4)], [(6, 3), (6, 4)], [(9, 3), (9, 4)]]
    assert rig.actions[6:10] == [(3, 3), (3, 4), (3, 4), (6, 3)]


def test_past_the_end_nothing_is_committed():
    rig = Rig(PREFIX, policy=Continuing(5), periods=(0.5, 3.5, 0.5))
    rig.run(8)
    # the chunk of tick 3, there at 7, has one action left for it; the next one is asked for at once
    assert rig.policy.committed == [None, [(0, 3), (0, 4)], [(3, 4)]]
    late = Rig(PREFIX, policy=Continuing(5), periods=(0.5, 5.5, 0.5))
    late.run(10)
    assert late.policy.committed == [None, [(0, 3), (0, 4)], None]


def test_what_is_committed_is_what_the_robot_will_get_within_its_limits():
    limited = replace(PREFIX, safety=SafetyConfig(low=(-9.0, 0.0), high=(9.0, 3.5)))
    rig = Rig(limited, policy=Continuing())
    rig.run(6)
    assert rig.policy.committed[1] == [(0, 3), (0, 3.5)]
    assert rig.actions[3:6] == [(0, 3), (0, 3.5), (3, 2)]


def test_averaged_actions_are_committed_as_averages():
    rig = Rig(replace(PREFIX, ensembling=0.0, action_steps=1), policy=Continuing())
    rig.run(4)
    # tick 2: the chunks of 0 and 1, the second of which begins with the actions of the first for 1 and 2
    assert rig.policy.committed[:3] == [None, [(0, 1), (0, 2)], [(0, 2), (0.5, 2.5)]]


def test_a_policy_without_prefix_is_given_nothing():
    rig = Rig(CONFIG, policy=Continuing())
    rig.run(9)
    assert rig.policy.committed == [None, None, None]


def test_the_loop_gives_as_many_as_the_policy_can_continue():
    policy = PolicyConfig({"state": 2}, action_dim=2, prefix_steps=4)
    assert LoopConfig.for_policy(policy, 10).prefix_ticks == 4
    assert LoopConfig.for_policy(policy, 10, prefix_ticks=1).prefix_ticks == 1
    assert LoopConfig.for_policy(PolicyConfig({"state": 2}, action_dim=2), 10).prefix_ticks == 0
    with pytest.raises(ValueError, match=r"prefix_ticks=5 cannot be continued: .* prefix_steps=4"):
        LoopConfig.for_policy(policy, 10, prefix_ticks=5)
    with pytest.raises(ValueError, match="prefix_ticks must be at least 0, got -1"):
        LoopConfig(10, prefix_ticks=-1)


def history(tick=0.0):
    return {"position": np.full((2, 2), 300.0 + tick), "angle": np.ones((2, 1))}


def test_a_policy_as_a_function_begins_with_what_is_committed():
    policy = small_policy(prefix_steps=3)
    committed = np.array([[301, 402], [303, 404]], np.float32)
    generator = torch.Generator().manual_seed(3)
    chunk = chunk_function(policy, 2, generator=generator)(history(), committed)
    assert np.array_equal(chunk[:2], committed)
    plain = chunk_function(policy, 2, generator=torch.Generator().manual_seed(3))(history())
    assert not np.array_equal(chunk[2:], plain[2:])


def test_a_policy_in_a_loop_and_its_thread_leaves_no_jump_at_the_joint():
    """Between chunks, the new one begins with the actions of the old one: the robot sees no difference."""

    class Robot:
        def observe(self):
            return {key: values[-1] for key, values in history().items()}

        def act(self, action):
            pass

    policy, requests = small_policy(prefix_steps=3), []
    sample = chunk_function(policy)

    def recorded(history, *committed):
        requests.append(committed)
        chunk = sample(history, *committed)
        assert all(np.array_equal(chunk[: len(actions)], actions) for actions in committed)
        return chunk

    config = LoopConfig.for_policy(policy.config, 100.0, warm_up=0)
    ControlLoop(Robot(), recorded, config, MonotonicClock(), ThreadSampler).run(30)
    assert not requests[0]
    assert any(len(actions) for given in requests[1:] for actions in given)


def echo():
    return lambda history, committed=None: history["count"] if committed is None else committed


def test_a_process_is_given_them_too():
    with SamplingProcess(echo) as sample:
        assert sample({"count": np.ones((2, 1))}).tolist() == [[1], [1]]
        assert sample({"count": np.ones((2, 1))}, np.array([[2.0, 3.0]])).tolist() == [[2, 3]]


def play(queue, ticks, slots=1, reset=None):
    """Actions (observed, k) by tick and slot, and what was committed at every request, (tick, {slot: actions})."""
    actions, requests = [], []
    for tick in range(ticks):

        def sample(history, needed, committed=None, steps=None, tick=tick):
            chunk = torch.stack(torch.broadcast_tensors(history["o"][:, -1], torch.arange(6.0)), dim=-1)  # (B, 6, 2)
            rows = {}
            for slot in range(slots) if steps is not None else ():
                known = committed[slot, : steps[slot]]
                chunk[slot, : len(known)] = known
                if len(known):
                    rows[slot] = [tuple(action) for action in known.int().tolist()]
            requests.append((tick, rows))
            return chunk

        if reset and reset[0] == tick:
            queue.reset(reset[1])
        observed = torch.arange(slots)[:, None] * 100.0 + tick
        actions.append([tuple(action) for action in queue.act({"o": observed}, sample).int().tolist()])
    return actions, requests


@pytest.mark.parametrize(
    ("latency", "most", "expected", "committed"),
    [
        (0, 2, "00 01 02 30 31 32 60 61", [{}, {}, {}]),
        (1, 2, "00 01 02 03 31 32 33 61", [{}, {0: [(0, 3)]}, {0: [(3, 3)]}]),
        (2, 2, "00 01 02 03 04 32 33 34", [{}, {0: [(0, 3), (0, 4)]}, {0: [(3, 3), (3, 4)]}]),
        (3, 2, "00 01 02 03 04 05 33 34", [{}, {0: [(0, 3), (0, 4)]}, {0: [(3, 3), (3, 4)]}]),
        (3, 9, "00 01 02 03 04 05 33 34", [{}, {0: [(0, 3), (0, 4), (0, 5)]}, {0: [(3, 3), (3, 4), (3, 5)]}]),
        (4, 9, "00 01 02 03 04 05 05 34", [{}, {0: [(0, 3), (0, 4), (0, 5)]}, {0: [(3, 4), (3, 5)]}]),
    ],
)
def test_a_rollout_with_latency_commits_what_is_executed_until_the_chunk_takes_effect(
    latency, most, expected, committed
):
    actions, requests = play(DelayedHorizon(1, 3, latency, prefix_steps=most), 8)
    assert [slots[0] for slots in actions] == [tuple(map(int, word)) for word in expected.split()]
    assert requests == list(zip((0, 3, 7 if latency == 4 else 6), committed, strict=True))


def test_slots_commit_what_is_their_own():
    actions, requests = play(DelayedHorizon(1, 3, 2, prefix_steps=2), 5, 2, (2, torch.tensor([False, True])))
    assert requests == [(0, {}), (2, {}), (3, {0: [(0, 3), (0, 4)]})], "the second one was begun anew at 2"
    assert [slots[1] for slots in actions] == [(100, 0), (100, 1), (102, 0), (102, 1), (102, 2)]


def test_an_agent_hands_them_to_its_policy():
    policy = small_policy(prefix_steps=2)
    agent = PolicyAgent(policy, 2, 1, DelayedHorizon(2, 3, 2, prefix_steps=2))
    agent.reset([0, 1])
    chunks, sample = [], policy.sample
    policy.sample = lambda *arguments, **known: chunks.append((known, sample(*arguments, **known))) or chunks[-1][1]
    acted = [agent.act({key: values[-1:].repeat(2, 0) for key, values in history(t).items()}) for t in range(6)]
    assert len(chunks) == 2
    assert chunks[0][0]["known_actions"] is None
    known, chunk = chunks[1]
    assert known["known_steps"].tolist() == [2, 2]
    assert np.array_equal(np.stack(acted[3:5], axis=1), chunk[:, :2].numpy()), "what was executed until it took effect"
    assert np.array_equal(acted[5], chunk[:, 2].numpy())


def test_as_many_as_nothing_are_refused():
    with pytest.raises(ValueError, match="prefix_steps must be 0 or more, got -1"):
        DelayedHorizon(1, 1, 0, prefix_steps=-1)
