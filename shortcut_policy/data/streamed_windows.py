"""Batches of windows whose images are too large for RAM: worker processes read them from the file, ahead of time."""

import multiprocessing
import weakref
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Self

import h5py
import numpy as np
import torch
from torch import Tensor

from shortcut_policy.data.batches import WindowBatch, WindowBatches
from shortcut_policy.data.episodes import Episodes
from shortcut_policy.data.frame_reader import read_frames, read_frames_in_worker, start_worker
from shortcut_policy.data.stored_images import StoredImages, frame_runs
from shortcut_policy.data.windows import Windows

_AHEAD_PER_WORKER = 2


@dataclass(frozen=True, eq=False)
class _Request:
    """Windows (B,) whose frames are being read: U different ones, of which each observation (B, To) shows one."""

    index: Tensor
    frame: Tensor
    images: Future[dict[str, np.ndarray]]


class StreamedWindows:
    """All windows of some episodes: what `WindowBatches` is, with the images in their file instead of in RAM.

    The batches are those of `WindowBatches` for the same seed, whatever the number of workers. Whoever asks for a
    batch is expected to ask for the same rows of the next ones, which are then being read already; any other batch can
    be had as well. A frame that a batch shows several times, as padding or in windows that overlap, is read once.

    Workers are spawned: a program that makes some must have its beginning under `if __name__ == "__main__":`. They end
    with `close`, with this object, or with this process, however it ends.

    Args:
        episodes: the low-dimensional part of the data, from `read_robomimic`.
        images: the other part, from `find_images`.
        windows: which rows of the data form each window.
        batch_size: B, rows of the global batch.
        seed: of the order.
        device: where batches are put.
        workers: processes that read; 0 for reading in this one.

    Raises:
        ValueError: when the images are not of these episodes, or a number is out of its range; later, when the images
            of a batch cannot be read.
        RuntimeError: later, when a worker died.
    """

    def __init__(
        self,
        episodes: Episodes,
        images: StoredImages,
        windows: Windows,
        batch_size: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        *,
        workers: int = 2,
    ) -> None:
        if workers < 0:
            raise ValueError(f"workers must not be negative, got {workers}")
        images.check_fits(episodes)
        self.batch_size = batch_size
        self.num_windows = len(windows)
        self._resident = WindowBatches(episodes, windows, batch_size, seed, device)
        self._device = device
        self._episodes = episodes
        self._images = images
        self._windows = windows
        self._ahead = _AHEAD_PER_WORKER * workers
        self._pending: dict[tuple[int, int, int], _Request] = {}  # (step, first row, end of rows) -> its images
        self._file = None if workers else h5py.File(images.path, "r")
        self._pool = (
            ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), start_worker) if workers else None
        )
        end = self._file.close if self._pool is None else partial(self._pool.shutdown, cancel_futures=True)
        self._finalize = weakref.finalize(self, end)

    def batch(self, step: int, rows: slice = slice(None)) -> WindowBatch:
        """The rows (a slice of 0 ... B - 1) of batch number `step`."""
        start, stop, _ = rows.indices(self.batch_size)
        wanted = [(number, start, stop) for number in range(step, step + self._ahead + 1)]
        for key in [key for key in self._pending if not step <= key[0] <= step + self._ahead]:
            self._pending.pop(key).images.cancel()  # left behind by a jump
        for key in wanted:
            if key not in self._pending:
                self._pending[key] = self._request(self._resident.order.batch(key[0], slice(start, stop)))
        return self._receive(self._pending.pop(wanted[0]))

    def sequential(self, limit: int | None = None) -> Iterator[WindowBatch]:
        """Some windows once, `limit` of them evenly spread over the data (default all), in batches of at most B."""
        requests: list[_Request] = []
        for index in self._resident.order.sequential(limit):
            requests.append(self._request(index))
            if len(requests) > self._ahead:
                yield self._receive(requests.pop(0))
        yield from map(self._receive, requests)

    def windows(self, index: Tensor) -> WindowBatch:
        """The windows of the given numbers (B,)."""
        return self._receive(self._request(index))

    def close(self) -> None:
        """End the workers; no batch can be had any more."""
        self._pending.clear()
        self._finalize()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, index: Tensor) -> _Request:
        observed = self._windows.observation_index[index.cpu().numpy()]  # (B, To)
        rows, frame = np.unique(observed, return_inverse=True)
        runs = frame_runs(rows, self._episodes)
        if self._pool is None:
            images: Future[dict[str, np.ndarray]] = Future()
            images.set_result(read_frames(self._file, self._images.arrays, runs))
        else:
            with self._deaths_reported():
                images = self._pool.submit(read_frames_in_worker, self._images.path, self._images.arrays, runs)
        return _Request(index, torch.from_numpy(frame.reshape(observed.shape)), images)

    def _receive(self, request: _Request) -> WindowBatch:
        batch = self._resident.windows(request.index)
        with self._deaths_reported():
            images = request.images.result()
        frame = request.frame.to(self._device)
        shown = {key: torch.from_numpy(frames).to(self._device)[frame] for key, frames in images.items()}
        return WindowBatch({**batch.observation, **shown}, batch.action, batch.action_is_pad)

    @contextmanager
    def _deaths_reported(self) -> Iterator[None]:
        try:
            yield
        except BrokenProcessPool as error:
            raise RuntimeError(
                f"a process that reads {self._images.path} died (out of memory?): try fewer workers, or none"
            ) from error
