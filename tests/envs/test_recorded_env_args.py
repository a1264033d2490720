import importlib.metadata
import warnings

import pytest

from envs.env_args import RecordedEnvironment, check_env_args

read = RecordedEnvironment.from_env_args


def test_what_was_recorded_is_told_apart_from_what_is_decided_here():
    kwargs = {
        "robots": "Panda",
        "controller_configs": {"type": "OSC_POSE"},
        "reward_shaping": False,
        "has_renderer": True,
        "camera_names": ["agentview"],
    }
    recorded = read({"env_name": "Lift", "type": 1, "env_kwargs": kwargs, "env_version": "1.4.1"})
    assert recorded.robots == ("Panda",)
    assert recorded.controllers == {"type": "OSC_POSE"}
    assert recorded.options == {"reward_shaping": False}
    assert recorded.version == "1.4.1"


@pytest.mark.parametrize(("name", "robots"), [("Lift", ("Panda",)), ("TwoArmTransport", ("Panda", "Panda"))])
def test_a_name_is_enough(name, robots):
    assert read({"env_name": name}) == RecordedEnvironment(name, robots, None, {}, None, is_before_1_5=True)
    assert RecordedEnvironment.of_today(name) == RecordedEnvironment(name, robots, None, {}, None, is_before_1_5=False)


@pytest.mark.parametrize(
    ("version", "expected"), [(None, True), ("1.2.0", True), ("1.4.1", True), ("1.5.0", False), ("2.0", False)]
)
def test_what_changed_with_1_5_is_told_by_the_version(version, expected):
    assert read({"env_name": "Lift", "env_version": version}).is_before_1_5 is expected


def test_only_another_version_is_warned_of():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env_args({"env_name": "Lift", "env_version": importlib.metadata.version("robosuite")})
    with pytest.warns(UserWarning, match=r"Lift was recorded with robosuite 1\.4\.0, installed is"):
        check_env_args({"env_name": "Lift", "env_version": "1.4.0"})
    with pytest.warns(UserWarning, match=r"Lift was recorded with robosuite 1\.2 or so, installed is"):
        check_env_args({"env_name": "Lift"})


@pytest.mark.parametrize(
    ("env_args", "message"),
    [
        ({}, "name no environment: 'env_name' is None"),
        ({"env_name": "Door-v1", "type": 2}, "of 'Door-v1' are of type 2"),
        ({"env_name": "Stack"}, "env_args are of 'Stack', but the environment is 'Lift'"),
        ({"env_name": "Lift", "env_version": "newest"}, "env_version 'newest'"),
    ],
)
def test_mistakes_are_named(env_args, message):
    with pytest.raises(ValueError, match=message):
        check_env_args(env_args, "Lift")
