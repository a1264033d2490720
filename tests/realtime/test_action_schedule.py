import math

import numpy as np
import pytest

from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.realtime.action_schedule import ActionSchedule


def chunk(number, length):
    """Action k of chunk n is (n, k)."""
    return np.array([(number, k) for k in range(length)], np.float32)


def given_out(schedule, ticks):
    return [None if (action := schedule.action(tick)) is None else tuple(action) for tick in ticks]


def test_the_newest_chunk_wins_from_its_tick_on_and_its_stale_prefix_is_dropped():
    schedule = ActionSchedule()
    assert given_out(schedule, [0]) == [None]
    schedule.add(0, chunk(0, 6))
    assert given_out(schedule, range(8)) == [*((0, k) for k in range(6)), None, None]
    schedule.add(3, chunk(1, 6))  # arrives at tick 5
    assert given_out(schedule, range(5, 11)) == [(1, 2), (1, 3), (1, 4), (1, 5), None, None]


def test_a_chunk_that_is_overtaken_changes_nothing():
    schedule = ActionSchedule()
    schedule.add(3, chunk(1, 4))
    schedule.add(0, chunk(0, 4))
    assert given_out(schedule, range(2, 8)) == [None, (1, 0), (1, 1), (1, 2), (1, 3), None]


def test_a_short_new_chunk_is_followed_by_what_is_left_of_the_old_one():
    schedule = ActionSchedule()
    schedule.add(0, chunk(0, 6))
    schedule.add(2, chunk(1, 2))
    assert given_out(schedule, range(2, 7)) == [(1, 0), (1, 1), (0, 4), (0, 5), None]


def test_of_two_chunks_of_one_tick_the_later_counts():
    for ensembling in (None, 0.5):
        schedule = ActionSchedule(ensembling)
        schedule.add(4, chunk(0, 3))
        schedule.add(4, chunk(1, 2))
        assert given_out(schedule, range(4, 8)) == [(1, 0), (1, 1), None, None]


def test_looking_ahead_uses_nothing_up_and_clearing_forgets():
    schedule = ActionSchedule()
    schedule.add(0, chunk(0, 3))
    assert given_out(schedule, [2, 0, 2]) == [(0, 2), (0, 0), (0, 2)]
    schedule.clear()
    assert given_out(schedule, range(3)) == [None] * 3


def test_ensembling_weighs_as_act_does_with_the_oldest_chunk_first():
    m = math.log(2)  # weights 1, 1/2, 1/4
    schedule = ActionSchedule(ensembling=m)
    schedule.add(0, np.full((4, 1), 70.0))
    schedule.add(1, np.full((4, 1), 35.0))
    schedule.add(2, np.full((4, 1), 7.0))
    assert schedule.action(2)[0] == pytest.approx((70 + 35 / 2 + 7 / 4) / (7 / 4))
    assert schedule.action(3)[0] == pytest.approx((70 + 35 / 2 + 7 / 4) / (7 / 4))
    assert schedule.action(4)[0] == pytest.approx((35 + 7 / 2) / (3 / 2))
    assert schedule.action(5)[0] == 7
    assert schedule.action(6) is None


def test_an_average_takes_from_each_chunk_the_action_of_the_tick():
    schedule = ActionSchedule(ensembling=0.0)
    schedule.add(0, np.array([[0.0], [10.0], [20.0], [30.0]]))
    schedule.add(2, np.array([[100.0], [200.0]]))
    assert schedule.action(2)[0] == pytest.approx((20 + 100) / 2)
    assert schedule.action(3)[0] == pytest.approx((30 + 200) / 2)


def test_absolute_poses_are_averaged_as_rotations():
    """A hand that points down turns by pi about x: rotation vectors of nearly opposite sign mean nearly the same."""
    poses = np.zeros((2, 1, 7))
    poses[:, 0, 3] = math.pi - 0.1, -(math.pi - 0.1)
    poses[:, 0, 6] = 1, -1
    for codec, angle in ((ActionCodec("absolute_pose"), math.pi), (ActionCodec(), 0.0)):
        schedule = ActionSchedule(ensembling=0.0, codec=codec)
        schedule.add(0, np.concatenate([poses[0], poses[0]]))
        schedule.add(1, poses[1])
        action = schedule.action(1)
        assert np.abs(action[3]) == pytest.approx(angle, abs=1e-5)
        assert action[6] == pytest.approx(0, abs=1e-6)


def test_an_infinite_m_is_refused():
    with pytest.raises(ValueError, match="ensembling=inf weighs nothing"):
        ActionSchedule(ensembling=math.inf)
