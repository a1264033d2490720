"""How long a policy takes to answer."""

import time

import numpy as np
import torch

from shortcut_policy.policy import Policy


def sampling_latency_ms(policy: Policy, num_steps: int, calls: int = 100, warm_up: int = 10) -> np.ndarray:
    """Milliseconds from an observation in host memory to a chunk in host memory, for one robot: (calls,).

    Every call gets another observation; the first `warm_up` calls are not counted.
    """
    config = policy.config
    rng = np.random.default_rng(0)
    times = np.empty(warm_up + calls)
    for call in range(warm_up + calls):
        observation = {
            key: torch.from_numpy(rng.standard_normal((1, config.observation_steps, dim), np.float32))
            for key, dim in config.observation_dims.items()
        }
        started = time.perf_counter()
        policy.sample(observation, num_steps).cpu()  # .cpu() waits for the device
        times[call] = time.perf_counter() - started
    return 1e3 * times[warm_up:]
