"""Roll out a policy for Reach: `python examples/own_robot/evaluate.py CHECKPOINT EPISODES`."""

import sys

import torch
from reach import Reach

from shortcut_policy import Policy
from shortcut_policy.agent import PolicyAgent
from shortcut_policy.evaluation import evaluate

checkpoint, episodes = sys.argv[1], int(sys.argv[2])
policy = Policy.from_pretrained(checkpoint, "cuda" if torch.cuda.is_available() else "cpu")
for num_steps in (1, 8):
    agent = PolicyAgent(policy, slots=50, num_steps=num_steps)
    evaluation = evaluate(agent, Reach, episodes=episodes, slots=50, num_envs=50)
    interval = evaluation.success_interval
    print(f"{num_steps} steps: success {evaluation.success_rate:.2f} [{interval.low:.2f}, {interval.high:.2f}]")
