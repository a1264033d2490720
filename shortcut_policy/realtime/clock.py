"""The clock of a control loop; tests put a simulated one in its place."""

import time
from typing import Protocol

__all__ = ["Clock", "MonotonicClock"]


class Clock(Protocol):
    """Tells the time in seconds since some moment, and waits."""

    def now(self) -> float:
        """The time; never earlier than before. Also called in the sampler's thread."""
        ...

    def sleep_until(self, moment: float) -> None:
        """Return at `moment`, or at once if it has passed."""
        ...


class MonotonicClock:
    """The system's monotonic clock, with the system's sleep.

    It does not spin in the end, which would be more exact on an idle core, and would take the interpreter's lock from
    the thread that samples.
    """

    def now(self) -> float:
        """Seconds."""
        return time.perf_counter()

    def sleep_until(self, moment: float) -> None:
        """Sleep."""
        time.sleep(max(0.0, moment - time.perf_counter()))
