"""Train on Push-T without configuration files: `python examples/train_from_python.py DATA OUTPUT STEPS`."""

import sys

from shortcut_policy import Policy, Trainer, TrainerConfig
from shortcut_policy.data.array_source import ArraySource
from shortcut_policy.data.batches import WindowBatches
from shortcut_policy.data.windows import make_windows
from shortcut_policy.data.zarr_replay import read_zarr
from shortcut_policy.policy_batches import PolicyBatches

data, output, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])

episodes = read_zarr(data, {"agent_pos": ArraySource("state", (0, 2)), "keypoints": ArraySource("keypoint")})
windows = make_windows(episodes.episode_ends, observation_steps=2, horizon=16)
policy = Policy.for_episodes(episodes, network={"name": "unet1d", "options": {"widths": [64, 128, 256]}})
Trainer(
    policy.network,
    policy.objective,
    PolicyBatches(policy, WindowBatches(episodes, windows, batch_size=64)),
    TrainerConfig(steps=steps),
    output=output,
    save_model=lambda folder, ema: policy.with_network(ema).save_pretrained(folder),
).run()

policy = Policy.from_pretrained(f"{output}/checkpoints/last")
observation = {key: values[None, :2] for key, values in episodes.observations.items()}  # (1, To, D)
print(policy.sample(observation, num_steps=1)[0])  # (T, A): sixteen positions of the agent, in pixels
