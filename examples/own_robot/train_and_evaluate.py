"""A policy for Reach, trained and rolled out: `python examples/own_robot/train_and_evaluate.py DATA OUTPUT STEPS`."""

import sys

from reach import Reach

from shortcut_policy import Policy, Trainer, TrainerConfig
from shortcut_policy.agent import PolicyAgent
from shortcut_policy.data.array_source import ArraySource
from shortcut_policy.data.batches import WindowBatches
from shortcut_policy.data.robomimic_hdf5 import read_robomimic
from shortcut_policy.data.windows import make_windows
from shortcut_policy.evaluation import evaluate
from shortcut_policy.policy_batches import PolicyBatches

data, output, steps = sys.argv[1], sys.argv[2], int(sys.argv[3])

episodes = read_robomimic(data, {"camera": ArraySource(), "position": ArraySource()})
windows = make_windows(episodes.episode_ends, observation_steps=1, horizon=8)
policy = Policy.for_episodes(
    episodes,
    observation_steps=1,
    horizon=8,
    action_steps=4,
    network={"name": "unet1d", "options": {"widths": [32, 64]}},
    objective={"name": "shortcut", "options": {"base_steps": 8, "bootstrap_teacher": "online", "sigma_data": 0.5}},
)
Trainer(
    policy.network,
    policy.objective,
    PolicyBatches(policy, WindowBatches(episodes, windows, batch_size=64)),
    TrainerConfig(steps=steps, learning_rate=1e-3, warmup_steps=50),
    output=output,
    save_model=lambda folder, ema: policy.with_network(ema).save_pretrained(folder),
).run()

policy = Policy.from_pretrained(f"{output}/checkpoints/last")
for num_steps in (1, 8):
    evaluation = evaluate(PolicyAgent(policy, slots=50, num_steps=num_steps), Reach, episodes=50, slots=50, num_envs=50)
    low, high = evaluation.success_interval.low, evaluation.success_interval.high
    print(f"{num_steps} steps: success {evaluation.success_rate:.2f} [{low:.2f}, {high:.2f}]")
