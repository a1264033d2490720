"""Sampling beside the control loop: in a thread, one request at a time."""

import queue
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from shortcut_policy.policy import Policy
from shortcut_policy.realtime.clock import Clock

__all__ = ["Answer", "SampleChunk", "Sampler", "ThreadSampler", "chunk_function"]

SampleChunk = Callable[..., np.ndarray]
"""{key: (To, *shape)}, the newest observation last -> chunk (T, A), the action for the newest observation first.

A loop with `prefix_ticks` gives a second argument where there is something to give: the actions (k, A) that will be
executed from the newest observation on until the chunk is expected, for the chunk to begin with them.
"""


def chunk_function(policy: Policy, num_steps: int = 1, *, generator: torch.Generator | None = None) -> SampleChunk:
    """A policy as what a control loop asks, for one robot.

    Args:
        policy: on its device.
        num_steps: network evaluations for a chunk.
        generator: of the noise, on the policy's device; default: torch's.
    """

    def sample(history: Mapping[str, np.ndarray], committed: np.ndarray | None = None) -> np.ndarray:
        rows = {key: torch.from_numpy(history[key][None]) for key in policy.config.observation_shapes if key in history}
        known = {} if committed is None else {"known_actions": torch.from_numpy(committed[None])}
        return policy.sample(rows, num_steps, generator=generator, **known)[0].cpu().numpy()

    return sample


@dataclass(frozen=True)
class Answer:
    """A chunk, or what went wrong.

    Attributes:
        tick: of the observation.
        chunk: (T, A); None where there is an error.
        error: that sampling raised.
        latency: seconds from the request to the chunk.
    """

    tick: int
    chunk: np.ndarray | None
    error: BaseException | None
    latency: float


class Sampler(Protocol):
    """Takes a request, and has its answer some time later; there is one request at a time."""

    def request(self, tick: int, history: Mapping[str, np.ndarray], committed: np.ndarray | None = None) -> None:
        """Have a chunk sampled from {key: (To, *shape)} and, if any, committed actions (k, A); returns at once."""
        ...

    def poll(self) -> Answer | None:
        """The answer, if it is there."""
        ...

    def wait(self) -> Answer:
        """The answer, as soon as it is there."""
        ...

    def close(self) -> None:
        """End, after the request in progress if need be."""
        ...


class ThreadSampler:
    """Samples in a thread of its own.

    PyTorch lets go of the interpreter's lock while it computes, but not between its operations: a policy of many small
    operations delays the loop by some fractions of a millisecond. `SamplingProcess` does not.

    Args:
        sample: called in the thread, every time in the same one (compiled graphs are bound to theirs).
        clock: for the latencies.
        grace: seconds that `close` waits for a sampling in progress; after that, the thread is left to end with the
            program.
    """

    def __init__(self, sample: SampleChunk, clock: Clock, grace: float = 5.0) -> None:
        self._sample = sample
        self._clock = clock
        self._grace = grace
        self._requests: queue.SimpleQueue[tuple[int, tuple[Any, ...], float] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="policy sampler", daemon=True)
        self._thread.start()

    def request(self, tick: int, history: Mapping[str, np.ndarray], committed: np.ndarray | None = None) -> None:
        """See `Sampler`."""
        # a function that knows nothing of committed actions is not given any
        arguments = (history,) if committed is None else (history, committed)
        self._requests.put((tick, arguments, self._clock.now()))

    def poll(self) -> Answer | None:
        """See `Sampler`."""
        try:
            return self._answers.get_nowait()
        except queue.Empty:
            return None

    def wait(self) -> Answer:
        """See `Sampler`."""
        return self._answers.get()

    def close(self) -> None:
        """End the thread; see `grace`."""
        self._requests.put(None)
        self._thread.join(self._grace)

    def _serve(self) -> None:
        while (request := self._requests.get()) is not None:
            tick, arguments, asked = request
            chunk, error = None, None
            try:
                chunk = np.asarray(self._sample(*arguments))
            except BaseException as raised:  # whatever it is, it belongs to whoever runs the loop
                error = raised
            self._answers.put(Answer(tick, chunk, error, self._clock.now() - asked))
