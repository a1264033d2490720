"""Batches of windows whose images are too large for RAM: worker processes read them from the file, ahead of time."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.util import Finalize
from queue import SimpleQueue
from typing import Self

import h5py
import numpy as np
import torch
from torch import Tensor

from shortcut_policy.data.batches import WindowBatch, WindowBatches
from shortcut_policy.data.episodes import Episodes
from shortcut_policy.data.frame_reader import FrameRun, read_frames, serve_frames
from shortcut_policy.data.stored_images import StoredImages, frame_runs
from shortcut_policy.data.windows import Windows
from shortcut_policy.worker_processes import Worker, WorkerDied, interrupts_deferred

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

    Workers end with `close`, with this object, or with this process, however it ends; they leave Ctrl-C and SIGTERM,
    which may reach the whole group, to this process.

    Args:
        episodes: the low-dimensional part of the data, from `read_robomimic`.
        images: the other part, from `find_images`.
        windows: which rows of the data form each window.
        batch_size: B, rows of the global batch.
        seed: of the order.
        device: where batches are put.
        workers: processes that read; 0 for reading in this one.

    Attributes:
        waited_seconds: how long the images of all batches so far were waited for: for the workers, or for the file
            where there are none, and not for their way to the device.

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
        self.waited_seconds = 0.0
        self._device = torch.device(device)
        self._episodes = episodes
        self._images = images
        self._windows = windows
        self._ahead = _AHEAD_PER_WORKER * workers
        self._pending: dict[tuple[int, int, int], _Request] = {}  # (step, first row, end of rows) -> its images
        self._reader = _Readers(images, workers) if workers else _Here(images)
        self._finalize = Finalize(self, self._reader.close)

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
        with self._waiting():
            images = self._reader.read(runs)
        return _Request(index, torch.from_numpy(frame.reshape(observed.shape)), images)

    def _receive(self, request: _Request) -> WindowBatch:
        try:
            with self._waiting():
                images = request.images.result()
        except WorkerDied as death:
            raise RuntimeError(f"{death}: is there memory enough? Try fewer workers, or none") from None
        batch = self._resident.windows(self._sendable(request.index))
        frame = self._to_device(request.frame)
        shown = {key: self._to_device(torch.from_numpy(frames))[frame] for key, frames in images.items()}
        return WindowBatch({**batch.observation, **shown}, batch.action, batch.action_is_pad)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.waited_seconds += time.perf_counter() - started

    def _to_device(self, values: Tensor) -> Tensor:
        return self._sendable(values).to(self._device, non_blocking=True)

    def _sendable(self, values: Tensor) -> Tensor:
        """In memory from which CUDA copies without waiting for its earlier kernels.

        The memory may be let go of at once: PyTorch uses it again only when the copies that were asked of it are done.
        """
        return values.pin_memory() if self._device.type == "cuda" and values.device.type == "cpu" else values


class _Here:
    """Reads frames in this process, when it is asked."""

    def __init__(self, images: StoredImages) -> None:
        self._file = h5py.File(images.path, "r")
        self._arrays = images.arrays

    def read(self, runs: Sequence[FrameRun]) -> Future[dict[str, np.ndarray]]:
        """What `read_frames` says of the runs."""
        frames: Future[dict[str, np.ndarray]] = Future()
        frames.set_result(read_frames(self._file, self._arrays, runs))
        return frames

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class _Readers:
    """Processes that read frames; a thread listens to each, which would else wait with its answer before a full pipe.

    Args:
        images: what they read.
        count: of processes.
    """

    def __init__(self, images: StoredImages, count: int) -> None:
        self._threads = ThreadPoolExecutor(count, "frames")
        self._workers: list[Worker] = []
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        name, arrays = f"a process that reads {images.path}", dict(images.arrays)
        try:
            with interrupts_deferred():
                for _ in range(count):
                    self._workers.append(Worker(serve_frames, images.path, arrays, name=name))
                    self._idle.put(self._workers[-1])
        except BaseException:
            self.close()
            raise

    def read(self, runs: Sequence[FrameRun]) -> Future[dict[str, np.ndarray]]:
        """What `read_frames` says of the runs, sooner or later, or WorkerDied."""
        return self._threads.submit(self._ask, runs)

    def close(self) -> None:
        """End the processes, and with them the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)  # no waiting: this may be one of them, freeing memory
        for worker in self._workers:
            worker.kill()  # it holds nothing that needs to be closed

    def _ask(self, runs: Sequence[FrameRun]) -> dict[str, np.ndarray]:
        worker = self._idle.get()
        try:
            worker.send(runs)
            return worker.receive()
        finally:
            self._idle.put(worker)
