"""How a control loop runs."""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, Self

import numpy as np

from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.policy_config import PolicyConfig
from shortcut_policy.realtime.safety import SafetyConfig, delta_columns

__all__ = ["LoopConfig"]


@dataclass(frozen=True)
class LoopConfig:
    """The values of a `ControlLoop`.

    Args:
        rate_hz: actions per second.
        action_steps: Ta, ticks from one observation that a chunk is computed from to the next; 1 with ensembling.
        observation_steps: To, observations for a chunk.
        deadline_ticks: a chunk is due so many ticks after its observation, else it counts as a miss; it is used in any
            case. At least 1, for the loop does not wait.
        prefix_ticks: how many ticks after its observation a chunk is expected. A policy with prefix conditioning is
            given the actions that the robot will have executed by then, and continues them. Too many take its freedom
            to react, too few may leave a jump; 0: none are given.
        ensembling: m of ACT's temporal ensembling, see `ActionSchedule`; None for receding horizon.
        warm_up: samplings before the first chunk, which is not counted either: first calls are slow.
        action_codec: what the actions mean.
        safety: limits of the actions, and the safe action.

    Raises:
        ValueError: a number is out of range.
    """

    rate_hz: float
    action_steps: int = 8
    observation_steps: int = 2
    deadline_ticks: int = 1
    prefix_ticks: int = 0
    ensembling: float | None = None
    warm_up: int = 3
    action_codec: ActionCodec = field(default_factory=ActionCodec)
    safety: SafetyConfig = field(default_factory=SafetyConfig)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise ValueError(f"rate_hz must be positive and finite, got {self.rate_hz}")
        least_of = {"action_steps": 1, "observation_steps": 1, "deadline_ticks": 1, "prefix_ticks": 0, "warm_up": 0}
        for name, least in least_of.items():
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")

    @classmethod
    def for_policy(
        cls,
        policy: PolicyConfig,
        rate_hz: float,
        *,
        low: np.ndarray | None = None,
        high: np.ndarray | None = None,
        safe_action: Literal["hold"] | np.ndarray = "hold",
        **others: Any,
    ) -> Self:
        """Steps and meaning of the actions as the policy has them.

        Args:
            policy: `Policy.config`.
            rate_hz: that of the demonstrations.
            low, high, safe_action: (A,), see `SafetyConfig`.
            others: fields of this class, in place of the policy's. As `prefix_ticks`, the policy has all that it can
                continue.

        Raises:
            ValueError: a number is out of range, or the policy cannot continue so many actions.
        """
        limits = [None if values is None else tuple(np.asarray(values, float).tolist()) for values in (low, high)]
        safe = "hold" if isinstance(safe_action, str) else tuple(np.asarray(safe_action, float).tolist())
        values = {
            "action_steps": policy.action_steps,
            "observation_steps": policy.observation_steps,
            "prefix_ticks": policy.prefix_steps,
            "action_codec": policy.action_codec,
            "safety": SafetyConfig(*limits, safe, delta_columns(policy.action_codec)),
            **others,
        }
        if values["prefix_ticks"] > policy.prefix_steps:
            raise ValueError(
                f"prefix_ticks={values['prefix_ticks']} cannot be continued: the policy was trained with "
                f"prefix_steps={policy.prefix_steps}"
            )
        return cls(rate_hz, **values)
