"""What a control loop says of itself: how well it kept its clock, and what it did where it could not."""

from collections import deque
from dataclasses import dataclass
from typing import Literal

import numpy as np

__all__ = ["DurationLog", "LoopReport", "Quantiles"]


@dataclass(frozen=True)
class Quantiles:
    """Of durations, in milliseconds."""

    p50: float
    p99: float
    max: float

    def __str__(self) -> str:
        return f"p50 {self.p50:.2f}, p99 {self.p99:.2f}, max {self.max:.2f} ms"


class DurationLog:
    """Durations in seconds: the quantiles of the latest `kept`, and the largest of all."""

    def __init__(self, kept: int = 100_000) -> None:
        self._latest: deque[float] = deque(maxlen=kept)
        self._largest = 0.0

    def add(self, seconds: float) -> None:
        """Take one more."""
        self._latest.append(seconds)
        self._largest = max(self._largest, seconds)

    def quantiles(self) -> Quantiles | None:
        """None where there are no durations."""
        if not self._latest:
            return None
        p50, p99 = np.percentile(tuple(self._latest), [50, 99])  # a copy: the loop may go on in another thread
        return Quantiles(1e3 * float(p50), 1e3 * float(p99), 1e3 * self._largest)


@dataclass(frozen=True)
class LoopReport:
    """A control loop's run so far.

    Attributes:
        ticks: in which the loop acted.
        skipped_ticks: that passed while the robot took longer than a period; their actions are left out.
        seconds: from the first tick's time to the last action.
        rate_hz: of the actions, on average; None with fewer than two.
        jitter_ms: from a tick's time to the moment when its action was given to the robot.
        latency_ms: from the request of a chunk to the chunk, in the sampler; the first chunk is not counted.
        chunks: that arrived while the loop ran, and were taken.
        misses: chunks that were not there when they were due.
        refused_chunks: with NaN, infinity or a wrong shape; none of their actions was executed.
        stale_actions: first actions of the chunks whose ticks had passed when they came.
        safe_actions: executed where there was no action; the one that ends a run is not counted.
        clipped_actions: brought within the limits.
        ended: why: all ticks were made, `stop` was set, a signal (Ctrl-C) came, an error; None while it runs.
    """

    ticks: int
    skipped_ticks: int
    seconds: float
    rate_hz: float | None
    jitter_ms: Quantiles | None
    latency_ms: Quantiles | None
    chunks: int
    misses: int
    refused_chunks: int
    stale_actions: int
    safe_actions: int
    clipped_actions: int
    ended: Literal["complete", "stopped", "interrupted", "failed"] | None

    def __str__(self) -> str:
        rate = "" if self.rate_hz is None else f" = {self.rate_hz:.2f} Hz"
        end = self.ended or "running"
        return "\n".join(
            [
                f"actions  {self.ticks} in {self.seconds:.2f} s{rate}, {self.skipped_ticks} ticks skipped: {end}",
                f"jitter   {self.jitter_ms or 'not measured'}",
                f"latency  {self.latency_ms or 'not measured'}",
                f"chunks   {self.chunks}, {self.misses} missed, {self.refused_chunks} refused, "
                f"{self.stale_actions} stale actions dropped",
                f"safety   {self.safe_actions} safe actions, {self.clipped_actions} clipped",
            ]
        )
