"""How long a policy takes to answer."""

import time
from collections.abc import Sequence

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
