"""What a robot is told whatever the policy says: nothing beyond its limits, no NaN, and something safe instead."""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from shortcut_policy.data.action_codec import ActionCodec

__all__ = ["ActionGuard", "SafetyConfig", "delta_columns", "hold"]


def delta_columns(codec: ActionCodec) -> tuple[int, ...]:
    """Columns of an action (E,) that are steps: of a delta pose, all but the gripper; of other actions, none."""
    if codec.representation != "delta_pose":
        return ()
    return tuple(7 * arm + column for arm in range(codec.arms) for column in range(6))


def hold(action: np.ndarray, delta_columns: tuple[int, ...] = ()) -> np.ndarray:
    """The action (A,) that keeps a robot where `action` (A,) led it: the same goals, and steps of zero."""
    held = action.copy()
    held[list(delta_columns)] = 0
    return held


@dataclass(frozen=True)
class SafetyConfig:
    """Limits of the actions, and what is done where there is no action.

    Args:
        low, high: of each of the A numbers of an action, in the units of the action; None for no limit.
        safe_action: "hold" keeps the last goals, with zeros in `delta_columns`; or always the same A numbers.
        delta_columns: columns that are steps and not goals: repeating them would go on moving. See `delta_columns`.

    Raises:
        ValueError: the limits exclude each other, or the safe action; a number is NaN.
    """

    low: tuple[float, ...] | None = None
    high: tuple[float, ...] | None = None
    safe_action: Literal["hold"] | tuple[float, ...] = "hold"
    delta_columns: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        given = {"low": self.low, "high": self.high}
        if not isinstance(self.safe_action, str):
            given["safe_action"] = self.safe_action
        elif self.safe_action != "hold":
            raise ValueError(f'safe_action={self.safe_action!r} is unknown: say "hold", or give the action\'s numbers')
        numbers = {name: values for name, values in given.items() if values is not None}
        for name, values in numbers.items():
            if any(map(math.isnan, values)):
                raise ValueError(f"{name}={values} contains NaN: give numbers, or inf where there is no limit")
        if len({len(values) for values in numbers.values()}) > 1:
            raise ValueError(f"{numbers} differ in length: give one number for each of the action's")
        if not isinstance(self.safe_action, str) and not all(map(math.isfinite, self.safe_action)):
            raise ValueError(f"safe_action={self.safe_action} cannot be executed: give finite numbers")
        if min(self.delta_columns, default=0) < 0:
            raise ValueError(f"delta_columns={self.delta_columns}: a column is counted from 0")
        ends = [self.low, *([] if isinstance(self.safe_action, str) else [self.safe_action]), self.high]
        ordered = [end for end in ends if end is not None]
        for lower, upper in pairwise(ordered):
            if any(a > b for a, b in zip(lower, upper, strict=True)):
                raise ValueError(f"{numbers}: low must not exceed high, and a safe action must lie between them")

    def check_width(self, width: int) -> None:
        """Refuse actions of another width than the limits and the safe action.

        Raises:
            ValueError: quoting both.
        """
        fixed = None if isinstance(self.safe_action, str) else self.safe_action
        for name, values in (("low", self.low), ("high", self.high), ("safe_action", fixed)):
            if values is not None and len(values) != width:
                raise ValueError(f"{name}={values} is for {len(values)} numbers: the policy's actions have {width}")
        if max(self.delta_columns, default=0) >= width:
            raise ValueError(f"delta_columns={self.delta_columns} do not exist: the policy's actions have {width}")


class ActionGuard:
    """Stands between the policy and the robot, and counts what it had to change.

    Attributes:
        clipped: actions that were brought within the limits.
        safe: safe actions, given where there was no action or one with NaN or infinity in it.
    """

    def __init__(self, config: SafetyConfig) -> None:
        self._config = config
        self._last: np.ndarray | None = None
        self.clipped = 0
        self.safe = 0

    def admit(self, action: np.ndarray | None) -> np.ndarray | None:
        """The action (A,) to execute for `action` (A,), or for none; None if there is nothing to hold yet."""
        if action is None or not np.isfinite(action).all():
            return self.safe_action()
        within = self.within(action)
        self.clipped += bool((within != action).any())
        self._last = within.copy()
        return within

    def within(self, actions: np.ndarray) -> np.ndarray:
        """A copy of actions (..., A), brought within the limits."""
        config, within = self._config, actions.copy()  # the robot may write into what it gets
        if config.low is not None:
            within = np.maximum(within, np.asarray(config.low, actions.dtype))
        if config.high is not None:
            within = np.minimum(within, np.asarray(config.high, actions.dtype))
        return within

    def safe_action(self) -> np.ndarray | None:
        """The safe action (A,); None if there is nothing to hold yet, and the robot is best left alone."""
        config = self._config
        if not isinstance(config.safe_action, str):
            self.safe += 1
            self._last = np.asarray(config.safe_action, np.float32)
            return self._last.copy()
        if self._last is None:
            return None
        self.safe += 1
        return hold(self._last, config.delta_columns)
