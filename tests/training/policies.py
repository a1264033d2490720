"""Policies of every network in a short training; as a script (`policies.py OUTPUT`, under torchrun too), one run."""

import sys
from pathlib import Path

import numpy as np
from small_policy import demonstrations, small_policy

from shortcut_policy.data.batches import WindowBatches
from shortcut_policy.data.episodes import Episodes
from shortcut_policy.data.windows import make_windows
from shortcut_policy.policy import Policy
from shortcut_policy.policy_batches import PolicyBatches
from shortcut_policy.training.config import EmaConfig, TrainerConfig
from shortcut_policy.training.distributed import Processes, join_processes
from shortcut_policy.training.loop import Trainer

NETWORKS = {
    "unet1d": {"widths": [16, 16, 32], "groups": 4, "step_embedding_dim": 8},
    "transformer": {"width": 8, "depth": 2, "heads": 2, "step_embedding_dim": 8},
}
VISION = {"encoder": {"name": "small_cnn", "options": {"widths": [8], "groups": 2, "keypoints": 2, "feature_dim": 4}}}


def episodes_with_images() -> Episodes:
    """Of `small_policy`, with a camera."""
    states = demonstrations()
    images = np.random.default_rng(1).integers(256, size=(26, 8, 8, 3), dtype=np.uint8)
    return Episodes({**states.observations, "front": images}, states.actions, states.episode_ends, "a test")


def seeing_policy(name: str) -> Policy:
    """A policy that sees, with a small network of that name."""
    return small_policy(
        episodes=episodes_with_images(), vision=VISION, network={"name": name, "options": NETWORKS[name]}
    )


def train(name: str, output: Path, processes: Processes) -> None:
    """Train it for four updates, its weights divided where there are several processes."""
    policy, episodes = seeing_policy(name), episodes_with_images()
    windows = make_windows(episodes.episode_ends, observation_steps=2, horizon=8)
    trainer = Trainer(
        policy.network,
        policy.objective,
        PolicyBatches(policy, WindowBatches(episodes, windows, 16)),
        TrainerConfig(4, 16, warmup_steps=1, log_every=1, sharding="fsdp", target_ema=EmaConfig(0.9), progress=False),
        output=output / name,
        save_model=lambda folder, network: policy.with_network(network).save_pretrained(folder),
        processes=processes,
    )
    trainer.run()


if __name__ == "__main__":
    with join_processes("cpu") as processes:
        for name in NETWORKS:
            train(name, Path(sys.argv[1]), processes)
