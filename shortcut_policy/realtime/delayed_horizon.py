"""Receding horizon with a policy that takes its time: what a rollout in simulation is like with a latency.

The simulator stands still while a policy computes, which flatters slow policies. Here a chunk takes effect only
`latency_ticks` after its observation, its first actions stale by then; meanwhile the old one is followed, and past its
end the last goal is held, as a control loop does. A tick is a step of the environment.

    latency_ticks = 2, T = 6, Ta = 3
    tick               0 1 2 3 4 5 6 7 8
    chunk of tick 0    A A A A A A              the first one is awaited at rest: it is there at once
    chunk of tick 3          s s A A A A        asked for at 3, there at 5
    given out          0 0 0 0 0 3 3 3 6        (the chunk of tick 6, asked for at 6, is there at 8)
    committed                0 0   3 3          actions that a policy with prefix conditioning continues
"""

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from shortcut_policy.chunking import RecedingHorizon, SampleChunk
from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.realtime.action_schedule import ActionSchedule
from shortcut_policy.realtime.replanning import Replanning
from shortcut_policy.realtime.safety import delta_columns, hold

__all__ = ["DelayedHorizon", "ticks_of_latency"]


def ticks_of_latency(latency_ms: float, rate_hz: float) -> int:
    """Ticks of a control loop until an answer can be used: rounded up, for the loop acts at ticks only.

    Raises:
        ValueError: the latency is negative or not finite, or the rate is not positive.
    """
    if not (math.isfinite(latency_ms) and latency_ms >= 0):
        raise ValueError(f"latency_ms must be 0 or more and finite, got {latency_ms}")
    if not rate_hz > 0:
        raise ValueError(f"rate_hz must be positive, got {rate_hz}")
    return math.ceil(round(latency_ms * rate_hz / 1000, 6))  # 50 ms at 20 Hz are 1 tick, whatever the rounding


class DelayedHorizon:
    """In the place of `RecedingHorizon`, which it equals where the latency is 0; each slot has its own clock.

    Args:
        observation_steps: To.
        action_steps: Ta, ticks from one observation to the next that a chunk is computed from; more where the answer
            takes longer, for there is one request at a time.
        latency_ticks: until a chunk takes effect; see `ticks_of_latency`.
        ensembling: m of ACT's temporal ensembling, see `ActionSchedule`; None for receding horizon.
        codec: what the actions mean: which of them are steps that must not be repeated, and how to average.
        prefix_steps: P, how many actions the policy can continue, see `action_prefix`: it is given those that are still
            executed until its chunk takes effect. 0 for a policy without.

    Raises:
        ValueError: `latency_ticks` or `prefix_steps` is negative.
    """

    def __init__(
        self,
        observation_steps: int,
        action_steps: int,
        latency_ticks: int,
        *,
        ensembling: float | None = None,
        codec: ActionCodec | None = None,
        prefix_steps: int = 0,
    ) -> None:
        for name, value in (("latency_ticks", latency_ticks), ("prefix_steps", prefix_steps)):
            if value < 0:
                raise ValueError(f"{name} must be 0 or more, got {value}")
        self._prefix_steps = prefix_steps
        self._action_steps = action_steps
        self._latency_ticks = latency_ticks
        self._ensembling = ensembling
        self._codec = codec or ActionCodec()
        self._slots: list[_Slot] = []
        # keeps the observations; its chunks are the single actions that are planned here
        self._histories = RecedingHorizon(observation_steps, action_steps=1)

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget the slots where mask (B,) is true; all of them without a mask, and then B may change."""
        self._histories.reset(mask)
        if mask is None:
            self._slots = []
        elif self._slots:
            for slot in mask.nonzero().flatten().tolist():
                self._slots[slot] = self._new_slot()

    def act(self, observation: Mapping[str, Tensor], sample: SampleChunk) -> Tensor:
        """The next action (B, A) for the newest observation; see `RecedingHorizon.act`.

        Where actions are committed, `sample` gets them as two more arguments: (B, P, A), and how many they are (B,).
        """
        return self._histories.act(observation, lambda history, every: self._plan(history, len(every), sample))

    def _plan(self, history: Mapping[str, Tensor], slots: int, sample: Callable[..., Tensor]) -> Tensor:
        """The next actions as chunks (B, 1, A)."""
        if not self._slots:
            self._slots = [self._new_slot() for _ in range(slots)]
        needed = torch.tensor([slot.asks() for slot in self._slots])  # (B,)
        if needed.any():
            committed = self._committed(needed.tolist())
            chunks = sample(history, needed, *committed).cpu().numpy()
            for slot, chunk, asked in zip(self._slots, chunks, needed.tolist(), strict=True):
                if asked:
                    slot.expect(chunk)
        return torch.from_numpy(np.stack([slot.act() for slot in self._slots])).unsqueeze(1)

    def _committed(self, needed: list[bool]) -> tuple[Tensor, ...]:
        """Committed actions (B, P, A) and how many they are (B,); nothing where no slot has any."""
        ahead = [
            slot.committed(self._prefix_steps if asked else 0) for slot, asked in zip(self._slots, needed, strict=True)
        ]
        some = next((actions for actions in ahead if actions is not None), None)
        if some is None:
            return ()
        padded = np.zeros((len(ahead), self._prefix_steps, some.shape[1]), some.dtype)
        steps = [0 if actions is None else len(actions) for actions in ahead]
        for row, (actions, count) in enumerate(zip(ahead, steps, strict=True)):
            padded[row, :count] = 0 if actions is None else actions
        return torch.from_numpy(padded), torch.tensor(steps)

    def _new_slot(self) -> "_Slot":
        return _Slot(
            ActionSchedule(self._ensembling, self._codec),
            Replanning(self._action_steps),
            self._latency_ticks,
            delta_columns(self._codec),
        )


class _Slot:
    """One robot: its tick, the chunks it has, and the one that is under way."""

    def __init__(
        self, schedule: ActionSchedule, replanning: Replanning, latency: int, delta_columns: tuple[int, ...]
    ) -> None:
        self._schedule = schedule
        self._replanning = replanning
        self._latency = latency
        self._delta_columns = delta_columns
        self._tick = 0
        self._under_way: tuple[int, int, np.ndarray] | None = None  # tick of arrival, tick of the observation, (T, A)
        self._last: np.ndarray | None = None

    def asks(self) -> bool:
        """Whether to ask for a chunk now, after what has arrived."""
        self._receive()
        return self._replanning.asks(self._tick)

    def committed(self, most: int) -> np.ndarray | None:
        """At most so many actions (k, A) that are executed from now on until a chunk asked for now is there."""
        return self._schedule.committed(self._tick, min(most, self._latency))

    def expect(self, chunk: np.ndarray) -> None:
        """Have a chunk (T, A) that was asked for now under way."""
        latency = self._latency if self._tick else 0
        self._under_way = self._tick + latency, self._tick, chunk

    def act(self) -> np.ndarray:
        """The action (A,) of this tick, which is over then."""
        self._receive()
        action = self._schedule.action(self._tick)
        if action is None:
            assert self._last is not None  # the first chunk was there at once
            action = hold(self._last, self._delta_columns)
        self._last = action
        self._tick += 1
        return action

    def _receive(self) -> None:
        if self._under_way is not None and self._under_way[0] <= self._tick:
            _, tick, chunk = self._under_way
            self._under_way = None
            self._replanning.answered()
            self._schedule.add(tick, chunk)
