"""A policy for Reach without configuration files: `python examples/own_robot/train.py DATA OUTPUT STEPS`."""

import sys

import torch

from shortcut_policy import Policy, Trainer, TrainerConfig
from shortcut_policy.data.array_source import ArraySource
from shortcut_policy.data.batches import WindowBatches
from shortcut_policy.data.robomimic_hdf5 import read_robomimic
from shortcut_policy.data.windows import make_windows
from shortcut_policy.policy_batches import PolicyBatches

data, output, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])
device = "cuda" if torch.cuda.is_available() else "cpu"
bootstrap = {"bootstrap_fraction": 0.5, "bootstrap_start": 0.6, "bootstrap_teacher": "online"}
prediction = {"sigma_data": 0.5, "weighting": "prediction"}

episodes = read_robomimic(data, {"camera": ArraySource(), "position": ArraySource()})
windows = make_windows(episodes.episode_ends, observation_steps=1, horizon=8)
policy = Policy.for_episodes(
    episodes,
    observation_steps=1,
    horizon=8,
    action_steps=4,
    vision={"encoder": {"name": "small_cnn"}, "crop": 0.9},
    network={"name": "unet1d", "options": {"widths": [32, 64, 128]}},
    objective={"name": "shortcut", "options": {"base_steps": 16, **bootstrap, **prediction}},
).to(device)
Trainer(
    policy.network,
    policy.objective,
    PolicyBatches(policy, WindowBatches(episodes, windows, batch_size=64, device=device)),
    TrainerConfig(steps=steps, learning_rate=1e-3, warmup_steps=200),
    output=output,
    save_model=lambda folder, ema: policy.with_network(ema).save_pretrained(folder),
).run()
