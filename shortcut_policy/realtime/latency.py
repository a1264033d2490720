"""How long a policy takes to answer."""

import math
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch

from shortcut_policy.policy import Policy


def sampling_latency_ms(
    policy: Policy, num_steps: Sequence[int], calls: int = 100, warm_up: int = 10
) -> dict[int, np.ndarray]:
    """Milliseconds from an observation in host memory to a chunk in host memory, for one robot.

    Every call gets another observation; the first `warm_up` calls of each number are not counted. The numbers of
    steps take turns, call by call, so that a machine that is busy for a while is busy for all of them.

    Returns:
        (calls,) for every number of steps.
    """
    config = policy.config
    rng = np.random.default_rng(0)
    times = {steps: np.empty(warm_up + calls) for steps in num_steps}
    for call in range(warm_up + calls):
        for steps in num_steps:
            observation = {
                key: torch.from_numpy(
                    rng.integers(256, size=(1, config.observation_steps, *shape), dtype=np.uint8)
                    if key in config.image_shapes
                    else rng.standard_normal((1, config.observation_steps, *shape), np.float32)
                )
                for key, shape in config.observation_shapes.items()
            }
            started = time.perf_counter()
            policy.sample(observation, steps).cpu()  # .cpu() waits for the device
            times[steps][call] = time.perf_counter() - started
    return {steps: 1e3 * values[warm_up:] for steps, values in times.items()}


def times_in_turns(
    calls: Mapping[str, Callable[[], object]],
    rounds: int,
    every: Mapping[str, int],
    warm_up: int = 10,
    in_a_row: int = 1,
) -> dict[str, np.ndarray]:
    """Milliseconds of every call of several functions, which take turns: what disturbs one disturbs all.

    Args:
        calls: by name; each waits for what it started.
        rounds: calls of each function, or of every n-th in proportion fewer.
        every: n, by name.
        warm_up: calls of each that are made first and not counted.
        in_a_row: calls of one turn. The first of a turn finds the processor's caches filled by another function.

    Returns:
        (in_a_row ceil(rounds / in_a_row / n),) for every name.
    """
    for call in calls.values():
        for _ in range(warm_up):
            call()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(math.ceil(rounds / in_a_row)):
        for name, call in calls.items():
            for _ in range(in_a_row if turn % every[name] == 0 else 0):
                started = time.perf_counter()
                call()
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: np.array(values) for name, values in times.items()}
