import math

import numpy as np
import pytest

from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.realtime.safety import ActionGuard, SafetyConfig, delta_columns, hold


def admit(guard, *actions):
    return [None if a is None else a.tolist() for a in (guard.admit(action) for action in actions)]


def test_limits_are_enforced_and_counted():
    guard = ActionGuard(SafetyConfig(low=(-1, -math.inf), high=(1, 5)))
    actions = [np.array(a, np.float32) for a in ((0.5, 5), (2, 6), (-3, -100), (1, 5))]
    assert admit(guard, *actions) == [[0.5, 5], [1, 5], [-1, -100], [1, 5]]
    assert (guard.clipped, guard.safe) == (2, 0)
    assert actions[1].tolist() == [2, 6], "the chunk is left alone"


@pytest.mark.parametrize("nothing", [None, np.array([math.nan, 0]), np.array([0, math.inf])])
def test_where_there_is_no_action_the_last_goal_is_held(nothing):
    guard = ActionGuard(SafetyConfig(high=(1, 1)))
    assert admit(guard, nothing) == [None], "nothing to hold yet"
    assert guard.safe == 0
    assert admit(guard, np.array([0.5, 2]), nothing, nothing, np.array([0.2, 0.3]), nothing) == [
        [0.5, 1],
        [0.5, 1],
        [0.5, 1],
        [0.2, 0.3],
        [0.2, 0.3],
    ]
    assert guard.safe == 3


def test_holding_means_no_further_step_for_deltas():
    guard = ActionGuard(SafetyConfig(delta_columns=(0, 1)))
    assert admit(guard, np.array([0.1, 0.2, -1.0]), None) == [[0.1, 0.2, -1], [0, 0, -1]]
    action = np.array([0.1, 0.2, -1.0])
    assert hold(action, (1,)).tolist() == [0.1, 0, -1]
    assert action.tolist() == [0.1, 0.2, -1]


def test_a_given_safe_action_is_given_from_the_first_moment():
    guard = ActionGuard(SafetyConfig(safe_action=(0.25, 0)))
    assert admit(guard, None, np.array([1.0, 1.0]), None) == [[0.25, 0], [1, 1], [0.25, 0]]
    assert guard.safe == 2


def test_a_robot_that_writes_into_its_action_changes_nothing():
    guard = ActionGuard(SafetyConfig())
    own = np.array([0.5])
    guard.admit(own)[:] = 7
    guard.safe_action()[:] = 8
    assert guard.safe_action().tolist() == [0.5]
    assert own.tolist() == [0.5]


def test_the_deltas_of_a_policy_are_known_by_its_codec():
    assert delta_columns(ActionCodec("delta_pose", arms=2)) == (0, 1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12)
    assert delta_columns(ActionCodec("absolute_pose")) == ()
    assert delta_columns(ActionCodec()) == ()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"low": (0, 2), "high": (1, 1)}, "low must not exceed high"),
        ({"low": (0,), "safe_action": (-1,)}, "a safe action must lie between"),
        ({"high": (0,), "safe_action": (1,)}, "a safe action must lie between"),
        ({"low": (0, 0), "high": (1,)}, "differ in length"),
        ({"low": (math.nan,)}, "contains NaN"),
        ({"safe_action": (math.inf,)}, "finite numbers"),
        ({"safe_action": "stop"}, "'stop' is unknown"),
        ({"delta_columns": (-1,)}, "counted from 0"),
    ],
)
def test_contradictions_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        SafetyConfig(**values)


@pytest.mark.parametrize("values", [{"low": (0,)}, {"high": (1, 1, 1)}, {"safe_action": (0,)}, {"delta_columns": (2,)}])
def test_another_width_than_the_policys_is_refused(values):
    with pytest.raises(ValueError, match=f"{next(iter(values))}=.*the policy's actions have 2"):
        SafetyConfig(**values).check_width(2)
    SafetyConfig(low=(0, 0), delta_columns=(1,)).check_width(2)
