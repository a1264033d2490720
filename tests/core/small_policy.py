"""Demonstrations and a policy small enough for tests of everything around it."""

import numpy as np

from shortcut_policy.data.episodes import Episodes
from shortcut_policy.policy import Policy


def demonstrations() -> Episodes:
    """Three episodes of 5, 9 and 12 steps; "angle" lies in (-3, 3), the rest in pixels."""
    rng = np.random.default_rng(0)
    return Episodes(
        observations={
            "position": rng.uniform(0, 512, (26, 2)).astype(np.float32),
            "angle": rng.uniform(-3, 3, (26, 1)).astype(np.float32),
        },
        actions=rng.uniform((100, 300), (200, 500), (26, 2)).astype(np.float32),
        episode_ends=np.cumsum([5, 9, 12]),
        source="a test",
    )


def small_policy(seed: int = 0, episodes: Episodes | None = None, **config) -> Policy:
    """To = 2, T = 8, Ta = 3, and a U-Net of two narrow stages."""
    defaults = {
        "horizon": 8,
        "action_steps": 3,
        "network": {"name": "unet1d", "options": {"widths": [8, 16], "step_embedding_dim": 8}},
        "objective": {"name": "shortcut", "options": {"base_steps": 8}},
    }
    return Policy.for_episodes(episodes or demonstrations(), seed=seed, **defaults | config)
