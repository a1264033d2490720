"""Demonstrations of Reach in robomimic's layout: `python examples/own_robot/record.py OUTPUT EPISODES`."""

import sys
from pathlib import Path

import h5py
import numpy as np
from reach import Reach

output, episodes = Path(sys.argv[1]), int(sys.argv[2])
if output.exists():
    sys.exit(f"error: {output} exists: choose another file")
env, rng = Reach(), np.random.default_rng(0)
output.parent.mkdir(parents=True, exist_ok=True)
part = output.with_suffix(".part")  # gets its name when it is whole
with h5py.File(part, "w") as file:
    for episode in range(episodes):
        observation, _ = env.reset(seed=episode)
        goal = env.dots[rng.integers(2)]  # the one dot or the other: no policy that takes their mean arrives
        observations, actions, done = [], [], False
        while not done:
            towards = goal - env.position
            step = 0.05 * towards / max(np.linalg.norm(towards), 0.05) + rng.normal(0, 0.005, 2)
            observations.append(observation)
            actions.append(step)
            observation, _, terminated, truncated, _ = env.step(step)
            done = terminated or truncated
        demo = file.create_group(f"data/demo_{episode}")
        demo["actions"] = np.array(actions, np.float32)
        for key in ("camera", "position"):
            demo[f"obs/{key}"] = np.array([o[key] for o in observations])
part.rename(output)
print(f"{output}: {episodes} demonstrations")
