"""robosuite's controller configurations: those of 1.4, one part per arm, turned into the composite ones of 1.5."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np

__all__ = ["ActionRepresentation", "composite_controllers", "hold_rotations"]

ActionRepresentation = Literal["as_stored", "delta_pose", "absolute_pose"]
"""What an environment's actions mean: whatever its controllers were configured for, or per arm 7 numbers: steps of the
end effector in [-1, 1] (position, rotation vector, gripper), or its goal in the world (m, rotation vector, gripper)."""

# One arm as robosuite 1.5 configures it by default, in the form of 1.4; also the controller of robomimic's data sets.
_OSC_POSE = {
    "type": "OSC_POSE",
    "input_max": 1,
    "input_min": -1,
    "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
    "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
    "kp": 150,
    "damping_ratio": 1,
    "impedance_mode": "fixed",
    "kp_limits": [0, 300],
    "damping_ratio_limits": [0, 10],
    "position_limits": None,
    "orientation_limits": None,
    "uncouple_pos_ori": True,
    "control_delta": True,
    "interpolation": None,
    "ramp_ratio": 0.2,
}


def composite_controllers(
    recorded: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None, robots: int, actions: ActionRepresentation
) -> list[dict[str, Any]]:
    """Configure every robot's controllers for robosuite 1.5.

    robosuite 1.5 takes 1.4's configurations too, but reads `control_delta: false` as delta actions and interprets
    actions in the frame of the robot's base, where 1.4 used the world: the arms of Transport would go sideways.

    Args:
        recorded: `controller_configs` of a data set, in the form of 1.4 or 1.5, one for all robots or one for each;
            None for robosuite's default, OSC_POSE.
        robots: how many.
        actions: what the environment shall take; "as_stored": what was recorded.

    Returns:
        A composite configuration for each robot.

    Raises:
        ValueError: the number of configurations is not that of the robots, a configuration is not understood, or it
            is of another controller than OSC_POSE and `actions` are poses.
    """
    if recorded is None or isinstance(recorded, Mapping):
        configs = [recorded] * robots
    else:
        configs = list(recorded)
    if len(configs) != robots:
        raise ValueError(f"env_args hold {len(configs)} controller_configs for {robots} robots: one for each is needed")
    return [_composite(_OSC_POSE if config is None else config, actions) for config in configs]


def hold_rotations(controllers: Iterable[Any]) -> None:
    """Let robosuite 1.5's arm controllers take delta actions as 1.4 did: without a rotation, the last goal stays.

    In 1.5 an action whose rotation is exactly zero makes the present rotation the goal, so that an arm that yields to
    its load turns away step by step; 1.4 kept the goal (`OperationalSpaceController.set_goal`). Nearly all actions of
    people are such.
    """
    for controller in controllers:

        def goal(delta: np.ndarray, *args: Any, of: Any = controller, moved: Any = controller.compute_goal_ori) -> Any:
            return moved(delta, *args) if np.any(delta) or of.goal_ori is None else of.goal_ori

        controller.compute_goal_ori = goal


def _composite(recorded: Mapping[str, Any], actions: ActionRepresentation) -> dict[str, Any]:
    if "body_parts" in recorded:
        config = copy.deepcopy(dict(recorded))
        parts = config["body_parts"]
        parts.update(parts.pop("arms", {}))  # as robosuite's own files nest them
    elif "type" in recorded:
        config = {"type": "BASIC", "body_parts": {"right": _part(recorded)}}
    else:
        raise ValueError(
            f"controller_configs {dict(recorded)!r} are of no known form: 'type' or 'body_parts' is needed"
        )
    if actions == "as_stored":
        return config
    for arm in ("right", "left"):
        part = config["body_parts"].get(arm)
        if part is None:
            continue
        if part["type"] != "OSC_POSE":
            raise ValueError(
                f"the recorded controller of the {arm} arm is {part['type']!r}, but {actions!r} actions need OSC_POSE: "
                "say actions='as_stored'"
            )
        if actions == "absolute_pose":
            part |= {"input_type": "absolute", "input_ref_frame": "world"}
        elif part.get("input_type") == "absolute":
            part |= {"input_type": "delta"}
    return config


def _part(recorded: Mapping[str, Any]) -> dict[str, Any]:
    """One arm's controller as 1.5 wants it; 1.4 acted in the frame of the world."""
    part = copy.deepcopy(dict(recorded))
    delta = part.pop("control_delta", True)
    if part["type"] in ("OSC_POSE", "OSC_POSITION"):
        part |= {"input_type": "delta" if delta else "absolute", "input_ref_frame": "world"}
    return {**part, "gripper": {"type": "GRIP"}}
