import numpy as np
import pytest

from shortcut_policy.realtime.smoothness import joint_roughness, second_differences


def test_second_differences_are_lengths():
    actions = np.array([[0.0, 0.0], [1.0, 1.0], [5.0, 5.0], [9.0, 9.0]])
    assert second_differences(actions) == pytest.approx([np.sqrt(18), 0])


def test_a_jump_counts_by_what_the_actions_do_elsewhere():
    slow = np.cumsum(np.arange(10.0))[:, None]  # every second difference is 1
    assert joint_roughness(slow, [5]) == pytest.approx(1)
    jumping = slow.copy()
    jumping[5:] += 4  # across the joint: +4 and -4 more
    assert joint_roughness(jumping, [5]) == pytest.approx((5 + 3) / 2)
    assert joint_roughness(jumping, [4]) != pytest.approx(4), "it is looked for where it is"
    both = np.concatenate([jumping, jumping[-1:] + np.array([[10.0]])])
    assert joint_roughness(both, [5, 10]) == pytest.approx((5 + 3 + 1) / 3), "at the end there is one side only"


@pytest.mark.parametrize("joints", [[], [0], [9], list(range(1, 9))])
def test_without_joints_or_anything_else_there_is_nothing_to_compare(joints):
    assert joint_roughness(np.arange(9.0)[:, None] ** 2, joints) is None


def test_straight_actions_have_no_scale():
    assert joint_roughness(np.arange(9.0)[:, None], [4]) is None
