import h5py
import numpy as np
import pytest

from shortcut_policy.data.env_args import EnvArgs, arms, check_codec, read_env_args, recorded_representation

DELTA = {"type": "OSC_POSE", "control_delta": True}
ABSOLUTE = {"type": "OSC_POSE", "control_delta": False}


def lift(controllers, robots=("Panda",), name="Lift", kind=1):
    return EnvArgs(name, kind, {"robots": list(robots), "controller_configs": controllers}, "1.4.1")


def composite(*arms, nested=False, **changes):
    parts = {arm: {"type": "OSC_POSE", "input_type": "delta", "gripper": {"type": "GRIP"}, **changes} for arm in arms}
    return {"type": "BASIC", "body_parts": {"arms": parts} if nested else parts | {"torso": {"type": "JOINT_POSITION"}}}


# Reading


def test_reads_env_args(write_robomimic, make_demo):
    demos = {"demo_0": make_demo(2)}
    written = {"env_name": "Lift", "type": 1, "env_kwargs": {"robots": ["Panda"]}, "env_version": "1.4.1"}
    assert read_env_args(write_robomimic(demos, env_args=written)) == EnvArgs("Lift", 1, {"robots": ["Panda"]}, "1.4.1")
    path = write_robomimic(demos, env_args={"env_name": "Lift", "type": 1})  # v0.1
    assert read_env_args(path) == EnvArgs("Lift", 1, {}, None)
    assert read_env_args(write_robomimic(demos, env_args=None)) is None


def test_reads_real_files(real_data):
    assert read_env_args(real_data("isaac/reach_indy7.hdf5")) == EnvArgs("Isaac-Reach-Indy7-IK-Rel-v0", 2)
    assert read_env_args(real_data("adroit/door_human.hdf5")) == EnvArgs("AdroitHandDoor-v1", 2)
    raw = read_env_args(real_data("robosuite_human/lift_panda_v1.4.0.hdf5"))
    assert (raw.env_name, raw.type, raw.env_version) == ("Lift", 1, "1.4.0")
    assert raw.env_kwargs.keys() == {"robots", "controller_configs"}
    assert recorded_representation(raw, "actions") == "delta_pose"
    assert arms(raw) == 1


def test_old_raw_files_name_the_environment_in_an_attribute_of_its_own(write_robomimic, make_demo):
    path = write_robomimic({"demo_1": make_demo(2)}, env_args=None)
    with h5py.File(path, "a") as file:
        file["data"].attrs.update({"env_info": np.bytes_('{"robots": "Sawyer"}'), "env": "Door"})
    assert read_env_args(path) == EnvArgs("Door", 1, {"robots": "Sawyer"}, None)


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("{'env_name': 'Lift'}", "env_args of .* is no JSON .*: repair"),
        ("[]", r"env_args of .* must be a JSON object, not \[\]"),
        ('{"type": 1}', "must hold env_name .*, not None, 1 and {}"),
        ('{"env_name": "Lift", "type": "1"}', "type .a whole number.*, not 'Lift', '1'"),
        ('{"env_name": "Lift", "type": 1, "env_kwargs": [1]}', r"env_kwargs .a mapping.*\[1\]"),
    ],
)
def test_refuses_what_it_does_not_understand(write_robomimic, make_demo, written, message):
    path = write_robomimic({"demo_0": make_demo(2)}, env_args=written)
    with pytest.raises(ValueError, match=message) as error:
        read_env_args(path)
    assert "\n" not in str(error.value)


# What the actions are


@pytest.mark.parametrize(
    ("controllers", "expected"),
    [
        (DELTA, "delta_pose"),
        (ABSOLUTE, "absolute_pose"),
        ({"type": "OSC_POSE"}, "delta_pose"),  # robosuite's default
        ([DELTA, DELTA], "delta_pose"),
        ([DELTA, ABSOLUTE], None),
        ({"type": "JOINT_VELOCITY"}, None),
        ({"type": "OSC_POSE", "impedance_mode": "variable"}, None),  # more columns
        (composite("right"), "delta_pose"),
        (composite("right", input_type="absolute"), "absolute_pose"),
        (composite("right", nested=True, input_type="absolute"), "absolute_pose"),
        (composite("right", "left", nested=True), "delta_pose"),
        ([composite("right"), composite("right")], "delta_pose"),
        (composite("right", type="IK_POSE"), None),
        (composite(), None),
        ("OSC_POSE", None),
        (None, None),
    ],
)
def test_controllers_say_what_actions_are(controllers, expected):
    env_args = lift(controllers)
    assert recorded_representation(env_args, "actions") == recorded_representation(env_args, "/actions") == expected
    assert recorded_representation(env_args, "action_dict/abs_pos") is None
    assert recorded_representation(env_args, "actions_abs") == (
        None if expected is None and controllers != [DELTA, ABSOLUTE] else "absolute_pose"
    )


def test_nothing_is_known_of_other_simulators():
    assert recorded_representation(None, "actions_abs") is None
    assert recorded_representation(lift(DELTA, kind=2), "actions") is None
    assert arms(None) is arms(lift(DELTA, kind=2)) is arms(EnvArgs("Lift", 1)) is None


@pytest.mark.parametrize(
    ("name", "robots", "expected"),
    [
        ("Lift", "Panda", 1),
        ("Lift", ["Panda"], 1),
        ("TwoArmTransport", ["Panda", "Panda"], 2),
        ("TwoArmPegInHole", "Baxter", 2),
        ("TwoArmLift", ["Baxter"], 2),
    ],
)
def test_arms(name, robots, expected):
    assert arms(EnvArgs(name, 1, {"robots": robots})) == expected


# What the task may take them for

ACTIONS = np.random.default_rng(0).uniform(-1, 1, (50, 7)).astype(np.float32)
POINTING_DOWN = ACTIONS.copy()
POINTING_DOWN[:, 3:6] = [3.0, 0.6, 0.1]


@pytest.mark.parametrize(
    ("env_args", "array", "representation", "actions"),
    [
        (lift(DELTA), "", "delta_pose", ACTIONS),
        (lift(DELTA), "actions_abs", "absolute_pose", ACTIONS),
        (lift(ABSOLUTE), "actions", "absolute_pose", POINTING_DOWN),
        (lift(DELTA), "actions", "absolute_pose", POINTING_DOWN),  # Diffusion Policy's *_abs.hdf5
        (lift([DELTA] * 2, ["Panda"] * 2), "actions", "delta_pose", np.hstack([ACTIONS, ACTIONS])),
        (lift({"type": "JOINT_VELOCITY"}), "actions", "as_stored", ACTIONS[:, :5]),
        (lift(DELTA), "action_dict/abs_pos", "as_stored", ACTIONS[:, :3]),
        (None, "actions", "as_stored", ACTIONS[:, :2]),
        (None, "", "delta_pose", ACTIONS),
    ],
)
def test_accepts(env_args, array, representation, actions):
    check_codec(env_args, array, representation, actions)


@pytest.mark.parametrize(
    ("env_args", "array", "representation", "actions", "message"),
    [
        (
            lift(DELTA),
            "actions",
            "as_stored",
            ACTIONS,
            "delta_pose actions, not as_stored: configure delta_pose, or abs",
        ),
        (lift(ABSOLUTE), "actions", "as_stored", ACTIONS, "not as_stored: configure absolute_pose$"),
        (
            lift(DELTA),
            "actions",
            "absolute_pose",
            ACTIONS,
            "actions of demos.hdf5 are delta_pose actions, not absolute_pose: read actions_abs where the file has it, "
            "or add it with `python scripts/convert_demos.py input=demos.hdf5 output=NEW.hdf5`",
        ),
        (
            lift(DELTA),
            "actions_abs",
            "delta_pose",
            ACTIONS,
            "absolute_pose actions, not delta_pose: read actions instead",
        ),
        (lift(ABSOLUTE), "actions", "delta_pose", ACTIONS, "not delta_pose: configure absolute_pose"),
        (lift(DELTA), "actions", "delta_pose", POINTING_DOWN, "absolute_pose actions, not delta_pose"),
        (lift(DELTA), "actions", "deltas", ACTIONS, "not deltas: configure as_stored, delta_pose or absolute_pose"),
        (lift(DELTA), "actions", "delta_pose", ACTIONS[:, :6], "are 6 wide, but as delta_pose they must be 7: "),
        (lift([DELTA] * 2, ["Panda"] * 2), "actions", "delta_pose", ACTIONS, "are 7 wide, .* must be 14: "),
        (None, "actions", "absolute_pose", ACTIONS[:, :6], "must be a multiple of 7: "),
    ],
)
def test_refuses(env_args, array, representation, actions, message):
    with pytest.raises(ValueError, match=message) as error:
        check_codec(env_args, array, representation, actions, source="demos.hdf5")
    assert "demos.hdf5" in str(error.value)


def test_recorded_deltas_are_not_taken_for_poses(real_data):
    """Devices write beyond [-1, 1], and the controller clips."""
    path = real_data("robosuite_human/lift_panda_v1.4.0.hdf5")
    with h5py.File(path) as file:
        for demo in file["data"].values():
            assert np.abs(demo["actions"]).max() > 3
            check_codec(read_env_args(path), "actions", "delta_pose", demo["actions"][()])
