"""The loop on a simulated clock, where a second passes at once and every answer is known."""

import functools
import math
import signal
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.policy_config import PolicyConfig
from shortcut_policy.realtime.control_loop import ControlLoop, LoopConfig
from shortcut_policy.realtime.delayed_horizon import DelayedHorizon
from shortcut_policy.realtime.safety import SafetyConfig
from shortcut_policy.realtime.sampling import Answer

PERIOD = 0.125  # a power of two: sums of it are exact
CONFIG = LoopConfig(rate_hz=8, action_steps=3, observation_steps=2, warm_up=0)


class Clock:
    """Stands still but when it is waited for, or told to go on."""

    def __init__(self):
        self.time = 1000.0

    def now(self):
        return self.time

    def sleep_until(self, moment):
        self.time = max(self.time, moment)


class Sampler:
    """Answers after the given periods: of the first chunk, the second, ...; the last one holds for all that follow."""

    def __init__(self, sample, clock, periods=(0.5,)):
        self.sample, self.clock, self.periods = sample, clock, list(periods)
        self.answer, self.ready = None, math.inf
        self.closed = False

    def request(self, tick, history, committed=None):
        assert self.answer is None, "one request at a time"
        latency = PERIOD * (self.periods.pop(0) if len(self.periods) > 1 else self.periods[0])
        chunk, error = None, None
        try:
            chunk = self.sample(history) if committed is None else self.sample(history, committed)
        except Exception as raised:
            error = raised
        self.answer, self.ready = Answer(tick, chunk, error, latency), self.clock.time + latency

    def poll(self):
        if self.answer is None or self.clock.time < self.ready:
            return None
        answer, self.answer = self.answer, None
        return answer

    def wait(self):
        self.clock.sleep_until(self.ready)
        return self.poll()

    def close(self):
        self.closed = True


class Robot:
    """Observes how often it was told to act; an action takes the periods that `busy` says for the n-th."""

    def __init__(self, clock, busy=None, at=None):
        self.clock, self.busy, self.at = clock, busy or {}, at or {}
        self.actions, self.times = [], []
        self.count = np.zeros(1, np.float32)  # the same buffer every time

    def observe(self):
        return {"count": self.count}

    def act(self, action):
        number = len(self.actions)
        self.actions.append(tuple(action.tolist()))
        self.times.append(self.clock.time)
        self.clock.time += PERIOD * self.busy.get(number, 0)
        self.count += 1
        if number in self.at:
            self.at[number]()


class Policy:
    """Action k of a chunk for the n-th observation is (n, k); the calls in `instead` give something else."""

    def __init__(self, horizon=8, instead=None):
        self.horizon, self.instead = horizon, instead or {}
        self.histories = []

    def __call__(self, history):
        call = len(self.histories)
        self.histories.append(history["count"].ravel().tolist())
        assert history["count"].shape == (2, 1)
        if call in self.instead:
            return self.instead[call]()
        return np.array([(history["count"][-1, 0], k) for k in range(self.horizon)], np.float32)


class Rig:
    """A loop with all that it needs, simulated."""

    def __init__(self, config=CONFIG, periods=(0.5,), policy=None, **robot):
        self.clock = Clock()
        self.robot = Robot(self.clock, **robot)
        self.policy = policy or Policy()
        self.samplers = []

        def make_sampler(sample, clock):
            self.samplers.append(Sampler(sample, clock, periods))
            return self.samplers[-1]

        self.loop = ControlLoop(self.robot, self.policy, config, self.clock, make_sampler)

    def run(self, ticks=None, stop=None):
        report = self.loop.run(ticks, stop)
        assert self.samplers[-1].closed
        return report

    @property
    def actions(self):
        """Without the safe action at the end."""
        return self.robot.actions[:-1]


def test_answers_in_time_are_used_from_the_next_tick_on_without_their_stale_action():
    rig = Rig()
    report = rig.run(9)
    assert rig.actions == [(0, 0), (0, 1), (0, 2), (0, 3), (3, 1), (3, 2), (3, 3), (6, 1), (6, 2)]
    assert rig.policy.histories == [[0, 0], [2, 3], [5, 6]]
    assert (report.ticks, report.chunks, report.misses, report.stale_actions) == (9, 2, 0, 2)
    assert (report.safe_actions, report.skipped_ticks, report.ended) == (0, 0, "complete")
    assert rig.robot.actions[-1] == (6, 2), "the safe action holds"


def test_a_late_answer_leaves_the_loop_on_the_old_chunk_and_is_one_miss():
    rig = Rig(periods=(0.5, 2.5, 0.5))
    report = rig.run(10)
    assert rig.actions == [*((0, k) for k in range(6)), (3, 3), (6, 1), (6, 2), (6, 3)]
    assert (report.misses, report.chunks, report.stale_actions, report.safe_actions) == (1, 2, 4, 0)
    on_time = Rig(replace(CONFIG, deadline_ticks=3), periods=(0.5, 2.5, 0.5))
    assert on_time.run(10).misses == 0
    assert on_time.actions == rig.actions, "the deadline counts, and changes nothing"


def test_past_the_end_of_the_chunk_the_last_action_is_held():
    rig = Rig(periods=(0.5, 100), policy=Policy(horizon=5))
    report = rig.run(9)
    assert rig.actions == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 4), (0, 4), (0, 4), (0, 4)]
    assert (report.misses, report.chunks, report.safe_actions) == (1, 0, 4)


@pytest.mark.parametrize(
    ("safety", "safe"), [(SafetyConfig(safe_action=(9, 8)), (9, 8)), (SafetyConfig(delta_columns=(1,)), (0, 0))]
)
def test_past_the_end_comes_the_safe_action_that_was_chosen(safety, safe):
    rig = Rig(replace(CONFIG, safety=safety), periods=(0.5, 100), policy=Policy(horizon=5))
    assert rig.run(7).safe_actions == 2
    assert rig.robot.actions == [*((0, k) for k in range(5)), safe, safe, safe]


def test_an_answer_that_is_stale_to_its_end_gives_no_action_at_all():
    rig = Rig(periods=(0.5, 6.5, 0.5), policy=Policy(horizon=5))
    report = rig.run(13)
    # asked for at 3, there at 10 for the ticks 3 to 7; then the one of 10, there at 11
    assert rig.actions == [*((0, k) for k in range(5)), *[(0, 4)] * 6, (10, 1), (10, 2)]
    assert (report.stale_actions, report.safe_actions, report.misses) == (5 + 1, 6, 2)


def test_ensembling_averages_the_chunks_that_reach_the_tick():
    rig = Rig(replace(CONFIG, action_steps=1, ensembling=math.log(2)), policy=Policy(horizon=3))
    rig.run(5)
    expected = [
        (0, 0),
        (0, 1),
        (1 / 2 / (3 / 2), (2 + 1 / 2) / (3 / 2)),  # chunk 0 at 2, chunk 1 at 1
        ((1 + 2 / 2) / (3 / 2), (2 + 1 / 2) / (3 / 2)),
        ((2 + 3 / 2) / (3 / 2), (2 + 1 / 2) / (3 / 2)),
    ]
    np.testing.assert_allclose(rig.actions, expected, rtol=1e-6)


def test_actions_beyond_the_limits_are_clipped_and_counted():
    rig = Rig(replace(CONFIG, safety=SafetyConfig(low=(0, 1), high=(3, 2))))
    report = rig.run(8)
    assert rig.actions == [(0, 1), (0, 1), (0, 2), (0, 2), (3, 1), (3, 2), (3, 2), (3, 1)]
    assert report.clipped_actions == 4


@pytest.mark.parametrize(
    "bad",
    [
        lambda: np.array([[0, math.nan], *[[0, 0]] * 7]),
        lambda: np.array([*[[0, 0]] * 7, [0, math.inf]]),
        lambda: np.zeros(8),
        lambda: np.zeros((8, 3)),
    ],
)
def test_a_chunk_with_nan_or_of_another_shape_is_refused_as_a_whole_and_asked_for_again(bad):
    rig = Rig(policy=Policy(instead={1: bad}))
    report = rig.run(7)
    assert rig.actions == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (4, 1), (4, 2)]
    assert rig.policy.histories[1:] == [[2, 3], [3, 4]]
    assert (report.refused_chunks, report.misses, report.chunks) == (1, 1, 1)


def test_deadlines_do_not_drift():
    rig = Rig(busy=dict.fromkeys(range(100), 0.75) | {10: 1.5, 20: 0})
    report = rig.run(40)
    late = {11: 0.5, 12: 0.25}  # tick 10 took half a period too long; each of the next wins a quarter back
    assert rig.robot.times[:40] == [rig.robot.times[0] + PERIOD * (n + late.get(n, 0)) for n in range(40)]
    assert report.skipped_ticks == 0
    assert report.rate_hz == 8
    assert report.jitter_ms.max == 500 * PERIOD
    assert report.jitter_ms.p50 == 0


def test_ticks_that_passed_while_the_robot_was_busy_are_skipped_with_their_actions():
    rig = Rig(busy={1: 2.25})
    report = rig.run(6)
    start = rig.robot.times[0]
    # tick 1 ends at 3.25: tick 2 has passed, tick 3 is late by a quarter of a period
    assert rig.robot.times[:-1] == [
        start,
        start + PERIOD,
        start + 3.25 * PERIOD,
        start + 4 * PERIOD,
        start + 5 * PERIOD,
    ]
    assert rig.actions == [(0, 0), (0, 1), (0, 3), (2, 1), (2, 2)]
    assert (report.ticks, report.skipped_ticks) == (5, 1)
    assert Rig(busy={2: 50}).run(6).skipped_ticks == 3, "of the six"


def test_warm_up_costs_no_miss_and_no_tick_and_is_not_part_of_the_latency():
    rig = Rig(replace(CONFIG, warm_up=2), periods=(500, 50, 5, 0.5))
    report = rig.run(7)
    assert rig.actions[:5] == [(0, 0), (0, 1), (0, 2), (0, 3), (3, 1)]
    assert rig.policy.histories[:4] == [[0, 0]] * 3 + [[2, 3]]
    assert report.misses == 0
    assert report.latency_ms.max == 500 * PERIOD
    assert rig.robot.times[0] == 1000 + 555 * PERIOD


def test_latencies_are_those_of_the_sampler():
    report = Rig(periods=(7, 0.5, 2.5, 0.25)).run(11)
    assert report.chunks == 3, "of the ticks 3, 6 and 9"
    assert (report.latency_ms.p50, report.latency_ms.max) == (500 * PERIOD, 2500 * PERIOD)


def test_an_error_of_the_policy_ends_the_loop_with_the_safe_action():
    def fail():
        raise ArithmeticError("no more actions")

    rig = Rig(replace(CONFIG, safety=SafetyConfig(safe_action=(9, 9))), policy=Policy(instead={1: fail}))
    with pytest.raises(ArithmeticError, match="no more actions"):
        rig.run(50)
    assert rig.robot.actions == [(0, 0), (0, 1), (0, 2), (0, 3), (9, 9)]
    assert rig.samplers[-1].closed
    report = rig.loop.report()
    assert (report.ticks, report.ended) == (4, "failed")
    assert "failed" in str(report)


@pytest.mark.parametrize("again", [False, True])
def test_an_error_of_the_robot_is_raised_after_an_attempt_at_the_safe_action(again):
    def fail():
        raise OSError("cable")

    rig = Rig(at={2: fail, **({3: fail} if again else {})})
    with pytest.raises(OSError, match="cable") as caught:
        rig.run(50)
    assert rig.robot.actions == [(0, 0), (0, 1), (0, 2), (0, 2)]
    assert bool(getattr(caught.value, "__notes__", [])) == again


def test_stop_ends_the_loop_with_the_next_tick():
    stop = threading.Event()
    rig = Rig(at={4: stop.set})
    report = rig.run(stop=stop)
    assert (report.ticks, report.ended) == (5, "stopped")
    assert rig.robot.actions == [(0, 0), (0, 1), (0, 2), (0, 3), (3, 1), (3, 1)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_loop_after_its_tick_and_leaves_the_handlers_as_they_were(number):
    before = signal.getsignal(number)
    rig = Rig(at={4: lambda: signal.raise_signal(number)})
    report = rig.run()
    assert (report.ticks, report.ended, len(rig.robot.actions)) == (5, "interrupted", 6)
    assert signal.getsignal(number) == before


def test_a_second_ctrl_c_does_what_it_always_does_but_for_the_safe_action():
    def impatient():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    rig = Rig(at={4: impatient})
    with pytest.raises(KeyboardInterrupt):
        rig.run()
    assert rig.robot.actions[4:] == [(3, 1), (3, 1)]


def test_a_loop_can_run_again_and_begins_anew():
    rig = Rig(periods=(0.5, 2.5))
    first = rig.run(6)
    again = rig.run(6)
    assert again == replace(first, seconds=again.seconds)
    assert rig.robot.actions[7:13] == [(7, 0), (7, 1), (7, 2), (7, 3), (7, 4), (7, 5)]


@pytest.mark.parametrize(
    ("instead", "message"),
    [
        (lambda: np.full((8, 2), math.nan), "first chunk contains NaN"),
        (lambda: np.zeros(8), r"shape \(8,\): the loop needs \(T, A\)"),
        (lambda: np.zeros((8, 3)), r"low=\(0, 0\) is for 2 numbers: the policy's actions have 3"),
        (lambda: np.zeros((3, 2)), "a chunk of 3 actions ends before the next one is due, action_steps=3"),
    ],
)
def test_a_first_chunk_that_does_not_fit_moves_nothing(instead, message):
    rig = Rig(replace(CONFIG, safety=SafetyConfig(low=(0, 0))), policy=Policy(instead={0: instead}))
    with pytest.raises(ValueError, match=message):
        rig.run(5)
    assert rig.robot.actions == []
    assert rig.samplers[-1].closed


@pytest.mark.parametrize(
    "values",
    [{"rate_hz": 0.0}, {"rate_hz": math.inf}, {"action_steps": 0}, {"observation_steps": 0}, {"deadline_ticks": 0}]
    + [{"warm_up": -1}],
)
def test_wrong_values_are_quoted(values):
    ((name, value),) = values.items()
    with pytest.raises(ValueError, match=f"{name} must be .*{value}"):
        replace(CONFIG, **values)


def test_a_policy_says_how_it_is_run():
    codec = ActionCodec("delta_pose")
    policy = PolicyConfig({"o": 3}, action_dim=7, observation_steps=3, horizon=16, action_steps=6, action_codec=codec)
    config = LoopConfig.for_policy(policy, 20, high=np.full(7, 0.5, np.float32), deadline_ticks=2)
    assert (config.rate_hz, config.observation_steps, config.action_steps, config.deadline_ticks) == (20, 3, 6, 2)
    assert config.action_codec == codec
    assert config.safety == SafetyConfig(high=(0.5,) * 7, delta_columns=(0, 1, 2, 3, 4, 5))
    changed = LoopConfig.for_policy(policy, 20, safe_action=np.zeros(7), action_steps=1)
    assert (changed.action_steps, changed.safety.safe_action) == (1, (0.0,) * 7)


def test_no_ticks_are_refused():
    with pytest.raises(ValueError, match="ticks=0"):
        Rig().run(0)


@pytest.mark.parametrize("ensembling", [None, 0.1])
@pytest.mark.parametrize("latency", [1, 2, 5, 11])
def test_the_loop_acts_as_rollouts_with_this_latency_do(latency, ensembling):
    """The evaluation with latency and the loop are two programs; what they do is the same."""
    rig = Rig(replace(CONFIG, ensembling=ensembling), periods=(latency - 0.5,))
    rig.run(40)
    policy = Policy()
    queue = DelayedHorizon(2, 3, latency, ensembling=ensembling)

    def sample(history, needed):
        return torch.from_numpy(policy({"count": history["count"][0].numpy()}))[None]

    observed = torch.arange(40, dtype=torch.float32)
    actions = [tuple(queue.act({"count": n.reshape(1, 1)}, sample)[0].tolist()) for n in observed]
    assert rig.actions == actions


def test_samplers_are_made_of_the_function_and_the_clock():
    clock = Clock()
    robot = Robot(clock)
    make = functools.partial(Sampler, periods=(0.25,))
    assert ControlLoop(robot, Policy(), CONFIG, clock, make).run(3).ticks == 3
