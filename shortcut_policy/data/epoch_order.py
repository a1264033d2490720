"""The order in which training data are seen."""

import numpy as np
import torch
from torch import Tensor


class EpochOrder:
    """Which rows of the data form each batch: a pure function of (seed, epoch).

    Batch k holds the positions k B ... (k + 1) B - 1 of the endless sequence of shuffled epochs, so that a run can
    begin anywhere and no row is left out at the end of an epoch.

    Args:
        num_rows: of the data: windows or images.
        batch_size: B, rows of the global batch.
        seed: of the order.
    """

    def __init__(self, num_rows: int, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.seed = seed
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def batch(self, step: int, rows: slice = slice(None)) -> Tensor:
        """Numbers of the data's rows in the rows (a slice of 0 ... B - 1) of batch number `step`."""
        start, stop, _ = rows.indices(self.batch_size)
        positions = np.arange(step * self.batch_size + start, step * self.batch_size + stop)
        index = np.empty(len(positions), np.int64)
        for epoch in np.unique(positions // self.num_rows):
            inside = positions // self.num_rows == epoch
            index[inside] = self._epoch_order(int(epoch))[positions[inside] % self.num_rows]
        return torch.from_numpy(index)

    def sequential(self, limit: int | None = None) -> tuple[Tensor, ...]:
        """Numbers of `limit` rows evenly spread over the data (default all), in batches of at most B."""
        count = self.num_rows if limit is None else min(limit, self.num_rows)
        return (torch.arange(count) * self.num_rows // count).split(self.batch_size)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(self.num_rows)
            self._epoch = epoch
        return self._order
