"""Times of several things beside each other, for the benchmarks."""

import statistics
import time
from collections.abc import Callable

import torch


def time_in_turns(parts: dict[str, Callable[[], object]], repeats: int, device: torch.device) -> dict[str, float]:
    """Median milliseconds of every part, one after the other in every round."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    times: dict[str, list[float]] = {name: [] for name in parts}
    for round_ in range(repeats + 3):
        for name, run in parts.items():
            wait()
            started = time.perf_counter()
            run()
            wait()
            if round_ >= 3:
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}
