"""What a policy's training takes from its data: windows, seen in ever new crops and colours, and normalised."""

import torch

from shortcut_policy.core.objectives.base import Batch
from shortcut_policy.data.batches import WindowSource
from shortcut_policy.policy import Policy
from shortcut_policy.training.seeding import derive_seed


class PolicyBatches:
    """Maps (step, rows of the global batch) to a batch for the objective, as `Trainer` asks.

    How images are seen, and how many actions of a chunk are known, are pure functions of (seed, step) for the whole
    batch, of which micro-batches and processes take their rows.

    Args:
        policy: on the device of the windows.
        windows: the data.
        seed: of the views and of the prefixes.
    """

    def __init__(self, policy: Policy, windows: WindowSource, seed: int = 0) -> None:
        self._policy = policy
        self._windows = windows
        self._seed = seed
        self._generator = torch.Generator(policy.device)

    @property
    def waited_seconds(self) -> float:
        """How long the windows were waited for so far."""
        return self._windows.waited_seconds

    def __call__(self, step: int, rows: slice = slice(None)) -> Batch:
        """The rows (a slice of 0 ... B - 1) of batch number `step`."""
        self._generator.manual_seed(derive_seed(self._seed, "views", step))
        views = self._policy.draw_views(self._windows.batch_size, self._generator)
        self._generator.manual_seed(derive_seed(self._seed, "prefix", step))
        prefix = self._policy.draw_prefix(self._windows.batch_size, self._generator)
        return self._policy.prepare(
            self._windows.batch(step, rows),
            None if views is None else views.rows(rows),
            None if prefix is None else prefix[rows],
        )
