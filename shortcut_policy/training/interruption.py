"""SIGTERM and SIGINT during a training: finish the step, save, stop, in all processes after the same step."""

import signal
from types import FrameType
from typing import Self

import torch

from shortcut_policy.training.distributed import Processes


class TrainingInterrupted(Exception):
    """A signal ended the run; it was saved and can be resumed.

    Attributes:
        signal_number: of the signal.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number


class StopRequest:
    """Remembers a signal that came inside its `with` block, where the caller's handlers are set aside.

    Args:
        processes: those that must stop together.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._signal = 0
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> Self:
        def remember(number: int, frame: FrameType | None) -> None:
            self._signal = number

        try:
            self._handlers = {number: signal.signal(number, remember) for number in (signal.SIGTERM, signal.SIGINT)}
        except ValueError:  # not in the main thread: whoever runs the thread handles signals
            self._handlers = {}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def agreed(self) -> int:
        """The signal that this process got (0: none); SIGTERM for all processes where any of several got one."""
        if self._processes.count == 1:
            return self._signal
        flags = self._processes.sum(torch.tensor(int(self._signal > 0), device=self._processes.device))
        return int(flags > 0) * signal.SIGTERM
