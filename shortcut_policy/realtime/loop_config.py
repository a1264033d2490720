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
    ensembling: float | None = None
    warm_up: int = 3
    action_codec: ActionCodec = field(default_factory=ActionCodec)
    safety: SafetyConfig = field(default_factory=SafetyConfig)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise ValueError(f"rate_hz must be positive and finite, got {self.rate_hz}")
        for name, least in (("action_steps", 1), ("observation_steps", 1), ("deadline_ticks", 1), ("warm_up", 0)):
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
            others: fields of this class, in place of the policy's.
        """
        limits = [None if values is None else tuple(np.asarray(values, float).tolist()) for values in (low, high)]
        safe = "hold" if isinstance(safe_action, str) else tuple(np.asarray(safe_action, float).tolist())
        values = {
            "action_steps": policy.action_steps,
            "observation_steps": policy.observation_steps,
            "action_codec": policy.action_codec,
            "safety": SafetyConfig(*limits, safe, delta_columns(policy.action_codec)),
            **others,
        }
        return cls(rate_hz, **values)
