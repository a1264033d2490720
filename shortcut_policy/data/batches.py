"""Batches of windows from data that lies on the device as tensors: making one is a few index operations."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from shortcut_policy.data.episodes import Episodes
from shortcut_policy.data.epoch_order import EpochOrder
from shortcut_policy.data.windows import Windows


@dataclass(frozen=True)
class WindowBatch:
    """Windows as they stand in the data, not normalised.

    Attributes:
        observation: key -> (B, To, *shape), oldest first.
        action: (B, T, A).
        action_is_pad: (B, T) bool, True where the action repeats one at the episode's edge.
    """

    observation: Mapping[str, Tensor]
    action: Tensor
    action_is_pad: Tensor


class WindowSource(Protocol):
    """Windows of some episodes, wherever their images lie: `WindowBatches` or `StreamedWindows`.

    Attributes:
        batch_size: B, rows of the global batch.
        num_windows: of all episodes.
        waited_seconds: how long data was waited for so far, in `batch` and `sequential`.
    """

    batch_size: int
    num_windows: int
    waited_seconds: float

    def batch(self, step: int, rows: slice = slice(None)) -> WindowBatch:
        """The rows (a slice of 0 ... B - 1) of batch number `step`."""
        ...

    def sequential(self, limit: int | None = None) -> Iterator[WindowBatch]:
        """Some windows once, `limit` of them evenly spread over the data (default all), in batches of at most B."""
        ...


class WindowBatches:
    """All windows of some episodes, resident on a device, in the order of `EpochOrder`.

    Args:
        episodes: the data.
        windows: which rows of the data form each window.
        batch_size: B, rows of the global batch.
        seed: of the order.
        device: where the tensors live.

    Attributes:
        order: which windows form each batch.
        waited_seconds: 0: nothing is waited for.
    """

    waited_seconds = 0.0

    def __init__(
        self,
        episodes: Episodes,
        windows: Windows,
        batch_size: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.batch_size = batch_size
        self.num_windows = len(windows)
        self.order = EpochOrder(self.num_windows, batch_size, seed)
        self._observations = {k: torch.from_numpy(v).to(device) for k, v in episodes.observations.items()}
        self._actions = torch.from_numpy(episodes.actions).to(device)
        self._observation_index = torch.from_numpy(windows.observation_index).to(device)
        self._action_index = torch.from_numpy(windows.action_index).to(device)
        self._action_is_pad = torch.from_numpy(windows.action_is_pad).to(device)

    def batch(self, step: int, rows: slice = slice(None)) -> WindowBatch:
        """The rows (a slice of 0 ... B - 1) of batch number `step`."""
        return self.windows(self.order.batch(step, rows))

    def sequential(self, limit: int | None = None) -> Iterator[WindowBatch]:
        """Some windows once, `limit` of them evenly spread over the data (default all), in batches of at most B."""
        return map(self.windows, self.order.sequential(limit))

    def windows(self, index: Tensor) -> WindowBatch:
        """The windows of the given numbers (B,)."""
        index = index.to(self._actions.device, non_blocking=True)
        observed, acted = self._observation_index[index], self._action_index[index]
        return WindowBatch(
            {key: values[observed] for key, values in self._observations.items()},
            self._actions[acted],
            self._action_is_pad[index],
        )
