"""The `object` observation as the recording's version of robosuite composed it.

robosuite concatenates what it tells of a task's objects into one vector, which data sets store as `object`. Between
1.4 and 1.5 the vector changed in four of five tasks, without a trace in the data: a policy trained on the one and
rolled out in the other sees wrong numbers of the right shape.

                     1.4                                               1.5
    Lift             gripper_to_cube_pos = gripper - cube              cube - gripper
    Can, Square,     each object's pose, then its pose relative        relative pose first
    ToolHang         to the gripper
    TwoArmTransport  ..., vectors from the grippers, two flags         ..., two flags, vectors from the grippers

1.5 also computes the relative poses before the poses that they need, hence from the object's pose one control step
earlier, and from no pose at all after a reset. That is mended here for both orders (`poses_first`).
"""

from collections.abc import Mapping, Sequence

import numpy as np

__all__ = ["ObjectState", "poses_first"]


def poses_first(names: Sequence[str]) -> list[str]:
    """Reorder sensors so that an object's pose comes right before what is computed from it, else as they stand.

    A relative pose is called `{object}_to_{gripper}eef_pos` and `..._quat`, a pose `{object}_pos`, `{object}_quat`.
    """
    ordered: list[str] = []
    waiting: dict[str, list[str]] = {}
    for name in names:
        body, relative, _ = name.partition("_to_robot")
        if relative and f"{body}_quat" in names and f"{body}_quat" not in ordered:
            waiting.setdefault(body, []).append(name)
            continue
        ordered.append(name)
        if name.endswith("_quat"):
            ordered += waiting.pop(name.removesuffix("_quat"), [])
    return ordered


class ObjectState:
    """Composes the vector from robosuite 1.5's single sensors.

    Args:
        names: of the sensors of objects that robosuite shows, in its order.
        as_before_1_5: whether to imitate robosuite 1.4.
    """

    def __init__(self, names: Sequence[str], *, as_before_1_5: bool = False) -> None:
        if as_before_1_5:
            flags = [name for name in names if name.endswith("_bin")]  # payload_in_target_bin, trash_in_trash_bin
            names = [name for name in poses_first(names) if name not in flags] + flags
        self._signs = {name: -1 if as_before_1_5 and name == "gripper_to_cube_pos" else 1 for name in names}

    def __call__(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Compose the vector (D,) float32 from {sensor: values}."""
        parts = [sign * np.atleast_1d(observation[name]) for name, sign in self._signs.items()]
        return np.concatenate(parts).astype(np.float32)
