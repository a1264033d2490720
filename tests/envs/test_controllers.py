import copy

import pytest

from envs.controllers import composite_controllers

OLD = {
    "type": "OSC_POSE",
    "input_max": 1,
    "input_min": -1,
    "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
    "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
    "kp": 170,
    "damping_ratio": 1,
    "impedance_mode": "fixed",
    "uncouple_pos_ori": True,
    "control_delta": True,
    "interpolation": None,
    "ramp_ratio": 0.2,
}
NEW = {"type": "BASIC", "body_parts": {"right": {"type": "OSC_POSE", "kp": 170, "input_type": "delta"}}}


def arm(config, name="right"):
    return config["body_parts"][name]


def test_a_configuration_of_1_4_acts_in_the_world_as_it_did():
    (config,) = composite_controllers(OLD, 1, "as_stored")
    assert config["type"] == "BASIC"
    expected = {key: value for key, value in OLD.items() if key != "control_delta"}
    assert arm(config) == {**expected, "input_type": "delta", "input_ref_frame": "world", "gripper": {"type": "GRIP"}}


def test_absolute_actions_of_1_4_stay_absolute():
    (config,) = composite_controllers({**OLD, "control_delta": False}, 1, "as_stored")
    assert arm(config)["input_type"] == "absolute"


@pytest.mark.parametrize("recorded", [OLD, {**OLD, "control_delta": False}, NEW, None])
def test_pose_actions_are_what_is_asked_for_whatever_was_recorded(recorded):
    (absolute,) = composite_controllers(recorded, 1, "absolute_pose")
    assert (arm(absolute)["input_type"], arm(absolute)["input_ref_frame"]) == ("absolute", "world")
    (delta,) = composite_controllers(recorded, 1, "delta_pose")
    assert arm(delta)["input_type"] == "delta"


def test_a_configuration_of_1_5_keeps_its_frame_and_its_other_parts():
    recorded = {"type": "BASIC", "body_parts": {"arms": {"right": {**arm(NEW), "input_ref_frame": "base"}}, "torso": 1}}
    (config,) = composite_controllers(recorded, 1, "delta_pose")
    assert config == {"type": "BASIC", "body_parts": {"torso": 1, "right": recorded["body_parts"]["arms"]["right"]}}


def test_what_was_recorded_is_not_changed():
    for recorded in (copy.deepcopy(OLD), copy.deepcopy(NEW)):
        before = copy.deepcopy(recorded)
        composite_controllers(recorded, 2, "absolute_pose")
        assert recorded == before


def test_two_robots_have_one_configuration_each_or_share_it():
    shared = composite_controllers(OLD, 2, "as_stored")
    assert len(shared) == 2
    assert shared[0] == shared[1]
    assert shared[0] is not shared[1]
    own = composite_controllers([OLD, {**OLD, "kp": 99}], 2, "as_stored")
    assert [arm(config)["kp"] for config in own] == [170, 99]


def test_without_a_configuration_the_controller_is_that_of_robomimics_data():
    (config,) = composite_controllers(None, 1, "delta_pose")
    assert (arm(config)["type"], arm(config)["kp"], arm(config)["output_max"][:1]) == ("OSC_POSE", 150, [0.05])


@pytest.mark.parametrize(
    ("recorded", "actions", "message"),
    [
        ([OLD], "delta_pose", "1 controller_configs for 2 robots"),
        ({"kp": 1}, "delta_pose", "of no known form"),
        ({"type": "JOINT_POSITION"}, "absolute_pose", "'JOINT_POSITION', but 'absolute_pose' actions need OSC_POSE"),
    ],
)
def test_mistakes_are_named(recorded, actions, message):
    with pytest.raises(ValueError, match=message):
        composite_controllers(recorded, 2, actions)
