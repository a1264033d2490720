"""Receding horizon: queues that turn single observations into histories and action chunks into single actions.

observations   o o O                      (To = 3, O: newest)
chunk              A a a a a a a a        (T = 8, A: the action for O)
executed           A a a a                (Ta = 4), then the next chunk is sampled
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

SampleChunk = Callable[[Mapping[str, Tensor], Tensor], Tensor]
"""({key: (B, To, *shape)}, rows that need a chunk (B,) bool) -> chunk (B, T, A), T >= Ta; other rows are ignored."""


class RecedingHorizon:
    """Observation and action queues for B slots, each with its own clock.

    Args:
        observation_steps: To. A slot's first observation is repeated To times.
        action_steps: Ta, how many actions of a chunk are executed.
    """

    def __init__(self, observation_steps: int, action_steps: int) -> None:
        self._observation_steps = observation_steps
        self._action_steps = action_steps
        self._history: dict[str, Tensor] = {}
        self._chunk: Tensor | None = None
        self._next = torch.empty(0, dtype=torch.int64)  # (B,) index of the next action of the chunk, -1: begin anew

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget the slots where mask (B,) is true; all of them without a mask, and then B may change."""
        if mask is None:
            self._history, self._chunk, self._next = {}, None, torch.empty(0, dtype=torch.int64)
        elif len(self._next):
            self._next[mask.to(self._next.device)] = -1

    def act(self, observation: Mapping[str, Tensor], sample: SampleChunk) -> Tensor:
        """The next action (B, A) for the newest observation {key: (B, *shape)}.

        Args:
            sample: makes chunks for the whole batch, of which only the rows that need one are used. The batch has
                always the size B, so that a slot's numbers do not depend on what the other slots do.

        Raises:
            ValueError: the number of slots changed without a reset.
        """
        slots = len(next(iter(observation.values())))
        if not len(self._next):
            self._next = torch.full((slots,), -1, dtype=torch.int64)
        if slots != len(self._next):
            raise ValueError(f"got observations for {slots} slots after {len(self._next)}: call reset() in between")
        self._remember(observation)

        needed = (self._next < 0) | (self._next >= self._action_steps)  # (B,)
        if needed.any():
            fresh = sample(self._history, needed)[:, : self._action_steps]  # (B, Ta, A)
            rows = needed.to(fresh.device).reshape(-1, 1, 1)
            self._chunk = fresh if self._chunk is None else torch.where(rows, fresh, self._chunk)
            self._next = torch.where(needed, 0, self._next)
        assert self._chunk is not None
        index = self._next.to(self._chunk.device)
        action = self._chunk[torch.arange(slots, device=self._chunk.device), index]
        self._next = self._next + 1
        return action

    def _remember(self, observation: Mapping[str, Tensor]) -> None:
        for key, newest in observation.items():
            repeated = newest.unsqueeze(1).repeat(1, self._observation_steps, *([1] * (newest.ndim - 1)))
            if key in self._history:
                shifted = torch.cat([self._history[key][:, 1:], newest.unsqueeze(1)], dim=1)  # (B, To, *shape)
                begins = (self._next < 0).to(newest.device).reshape(-1, *([1] * newest.ndim))
                self._history[key] = torch.where(begins, repeated, shifted)
            else:
                self._history[key] = repeated
