"""Delta actions of robosuite's OSC_POSE controller and the absolute ones with the same goal, in float64.

An action of one arm is (..., 7): position 3, rotation vector 3, gripper 1 in [-1, 1]. A delta action is clipped to the
controller's input range, scaled to its output range (m, rad) and added to the pose that the grip site has when the
action begins (robosuite's goal update mode "achieved"):

    goal position = position + frame @ delta position
    goal rotation = R(frame @ delta rotation) @ rotation

where `frame` is the rotation of the arm's base in the world, if the controller's `input_ref_frame` is "base" (the
default of robosuite 1.5), and the identity if it is "world" (robosuite up to 1.4 knows nothing else). An absolute
action is that goal in the world, for `input_type: "absolute"` with `input_ref_frame: "world"`: m, and the principal
rotation vector (angle up to pi), which jumps where the angle passes pi; the network sees rot6d, where nothing jumps.

The pose is that of the simulator's state: robosuite's observations may be one physics step older. robosuite itself
turns by a matrix rounded to float32, so that its goals differ from these by some 1e-7.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from scipy.spatial.transform import Rotation

__all__ = ["DeltaActions", "OscScale", "absolute_from_delta", "delta_from_absolute", "hold_rotation"]

_ROUNDING = 1e-5  # of the input range: float32 positions and rotations do not count as clipped


@dataclass(frozen=True)
class OscScale:
    """Linear map of delta actions (..., 6) to m and rad; the defaults are robosuite's.

    Raises:
        ValueError: a bound is not six finite numbers, or a minimum not below its maximum.
    """

    input_min: tuple[float, ...] = (-1.0,) * 6
    input_max: tuple[float, ...] = (1.0,) * 6
    output_min: tuple[float, ...] = (-0.05,) * 3 + (-0.5,) * 3
    output_max: tuple[float, ...] = (0.05,) * 3 + (0.5,) * 3

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            bound = np.asarray(getattr(self, name))
            if bound.shape != (6,) or bound.dtype.kind not in "iuf" or not np.isfinite(bound).all():
                raise ValueError(f"OSC_POSE's {name} must be six finite numbers, got {getattr(self, name)!r}")
        for kind in ("input", "output"):
            low, high = getattr(self, f"{kind}_min"), getattr(self, f"{kind}_max")
            if not np.less(low, high).all():
                raise ValueError(f"OSC_POSE's {kind}_min {low} must lie below its {kind}_max {high}")

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read one arm's controller configuration, of robosuite 1.4 or 1.5.

        Raises:
            ValueError: another controller, one whose actions also carry gains, or bounds that are none.
        """
        if config.get("type") != "OSC_POSE":
            raise ValueError(f"only OSC_POSE takes pose actions, the controller is {config.get('type')!r}")
        if (mode := config.get("impedance_mode", "fixed")) != "fixed":
            raise ValueError(f"OSC_POSE with impedance_mode {mode!r} takes gains in its actions: only 'fixed' is known")
        given = {field.name: config[field.name] for field in fields(cls) if field.name in config}
        return cls(**{name: _six(bound) for name, bound in given.items()})

    def to_output(self, values: np.ndarray) -> np.ndarray:
        """Clip (..., 6) to the input range and scale to m and rad."""
        low, high, goal_low, goal_high = (np.array(getattr(self, field.name)) for field in fields(self))
        centre, goal_centre = (low + high) / 2, (goal_low + goal_high) / 2
        return (np.clip(values, low, high) - centre) * (goal_high - goal_low) / (high - low) + goal_centre

    def to_input(self, values: np.ndarray) -> np.ndarray:
        """Undo `to_output`; what lies outside the output range comes to lie outside the input range."""
        low, high, goal_low, goal_high = (np.array(getattr(self, field.name)) for field in fields(self))
        centre, goal_centre = (low + high) / 2, (goal_low + goal_high) / 2
        return (values - goal_centre) * (high - low) / (goal_high - goal_low) + centre


@dataclass(frozen=True, eq=False)
class DeltaActions:
    """Delta actions, and where they fall short of their goals.

    Attributes:
        action: (..., 7), within the input range.
        is_clipped: (..., 6) bool, True where position or rotation was outside it by more than rounding.
    """

    action: np.ndarray
    is_clipped: np.ndarray


def absolute_from_delta(
    action: np.ndarray, position: np.ndarray, rotation: np.ndarray, scale: OscScale, frame: np.ndarray | None = None
) -> np.ndarray:
    """The goals of delta actions, in the world.

    Args:
        action: (..., 7) delta actions; the gripper passes unchanged.
        position: (..., 3) of the grip site in the world when the action begins, m.
        rotation: (..., 3, 3) of the grip site in the world when the action begins.
        scale: of the controller.
        frame: (3, 3) or (..., 3, 3) rotation of the arm's base in the world; None if deltas are in the world's frame.

    Returns:
        Absolute actions (..., 7) float64; leading shapes are broadcast.

    Raises:
        ValueError: an argument of another shape.
    """
    action, position, rotation = _checked(action, position, rotation)
    delta = scale.to_output(action[..., :6])
    delta_position, delta_rotation = delta[..., :3], delta[..., 3:]
    if frame is not None:
        frame = _shaped("frame", frame, (3, 3))
        delta_position, delta_rotation = _turned(frame, delta_position), _turned(frame, delta_rotation)
    return _joined(position + delta_position, _vector(_matrix(delta_rotation) @ rotation), action[..., 6:])


def delta_from_absolute(
    action: np.ndarray, position: np.ndarray, rotation: np.ndarray, scale: OscScale, frame: np.ndarray | None = None
) -> DeltaActions:
    """Undo `absolute_from_delta`: the delta actions (..., 7) whose goals come nearest to the absolute ones, by axis.

    Args:
        action: (..., 7) absolute actions: goals in the world; the gripper passes unchanged.
        position: (..., 3) of the grip site in the world when the action begins, m.
        rotation: (..., 3, 3) of the grip site in the world when the action begins.
        scale: of the controller.
        frame: (3, 3) or (..., 3, 3) rotation of the arm's base in the world; None if deltas are in the world's frame.

    Raises:
        ValueError: an argument of another shape.
    """
    action, position, rotation = _checked(action, position, rotation)
    delta_position = action[..., :3] - position
    delta_rotation = _vector(_matrix(action[..., 3:6]) @ rotation.swapaxes(-1, -2))
    if frame is not None:
        inverse = _shaped("frame", frame, (3, 3)).swapaxes(-1, -2)
        delta_position, delta_rotation = _turned(inverse, delta_position), _turned(inverse, delta_rotation)
    wanted = scale.to_input(_joined(delta_position, delta_rotation))
    possible = np.clip(wanted, scale.input_min, scale.input_max)
    tolerance = _ROUNDING * np.subtract(scale.input_max, scale.input_min)
    return DeltaActions(_joined(possible, action[..., 6:]), np.abs(wanted - possible) > tolerance)


def hold_rotation(absolute: np.ndarray, delta: np.ndarray) -> np.ndarray:
    """Give the absolute actions of an episode the goal rotations of robosuite up to 1.4.

    There, a delta action whose rotation is exactly zero leaves the goal rotation as it is; robosuite 1.5 moves it to
    where the grip site has drifted. People steer mostly without rotation, so for recordings of 1.4 it matters. What the
    goal was before the first rotation is not recorded (not the first pose: recorders of 1.4 draw the robot's joints
    once more after the controller has set its goal), but the arm has settled on it: the mean rotation stands for it.

    Args:
        absolute: (T, 7) what `absolute_from_delta` made of the episode's actions, from its first on.
        delta: (T, 7) these actions.

    Returns:
        The absolute actions (T, 7), each with the rotation of the last one that turned.
    """
    turns = delta[:, 3:6].any(axis=-1)
    last_turn = np.maximum.accumulate(np.where(turns, np.arange(len(turns)), -1))  # (T,)
    before = last_turn < 0
    rotation = absolute[last_turn, 3:6]
    if before.any():
        rotation[before] = Rotation.from_rotvec(absolute[before, 3:6]).mean().as_rotvec()
    return np.concatenate((absolute[:, :3], rotation, absolute[:, 6:]), axis=-1)


def _six(bound: float | Sequence[float]) -> tuple[float, ...]:
    """One number for all, or one for each: robosuite allows both."""
    return (bound,) * 6 if np.ndim(bound) == 0 else tuple(bound)


def _checked(action: np.ndarray, position: np.ndarray, rotation: np.ndarray) -> tuple[np.ndarray, ...]:
    return _shaped("action", action, (7,)), _shaped("position", position, (3,)), _shaped("rotation", rotation, (3, 3))


def _shaped(name: str, values: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    array = np.asarray(values, np.float64)
    if array.shape[-len(shape) :] != shape:
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"{name} must have shape (..., {wanted}), got {array.shape}: give one arm at a time")
    return array


def _joined(*parts: np.ndarray) -> np.ndarray:
    """Concatenate along the last axis, broadcasting the others."""
    leading = np.broadcast_shapes(*(part.shape[:-1] for part in parts))
    return np.concatenate([np.broadcast_to(part, (*leading, part.shape[-1])) for part in parts], axis=-1)


def _turned(matrix: np.ndarray, vector: np.ndarray) -> np.ndarray:
    return (matrix @ vector[..., None])[..., 0]


def _matrix(vector: np.ndarray) -> np.ndarray:
    return Rotation.from_rotvec(vector.reshape(-1, 3)).as_matrix().reshape(*vector.shape, 3)


def _vector(matrix: np.ndarray) -> np.ndarray:
    return Rotation.from_matrix(matrix.reshape(-1, 3, 3)).as_rotvec().reshape(matrix.shape[:-1])
