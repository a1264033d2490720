"""Act with an exported policy, without torch: `python examples/run_onnx.py policy.onnx` (numpy and onnxruntime)."""

import json
import sys
from collections import deque

import numpy as np
import onnxruntime


class OnnxPolicy:
    """Keeps the last To observations, samples a chunk of actions, and executes its first Ta: receding horizon."""

    def __init__(self, path, seed=0):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        texts = self.session.get_modelmeta().custom_metadata_map
        self.about = {name: json.loads(text) for name, text in texts.items()}
        self.rng = np.random.default_rng(seed)
        self.reset()

    def reset(self):
        """Begin an episode."""
        self.history, self.actions = deque(maxlen=self.about["observation_steps"]), deque()

    def act(self, observation):
        """The next action (E,) for the newest observation {key: (D,) or (H, W, C) uint8}, in the data's units."""
        self.history.append(observation)
        while len(self.history) < self.history.maxlen:  # an episode's first observation is repeated
            self.history.append(observation)
        if not self.actions:
            inputs = {
                key: np.stack([step[key] for step in self.history]).astype(spec["dtype"])[None]
                for key, spec in self.about["observations"].items()
            }
            draws, *shape = self.about["noise_shape"]
            noise = self.rng.standard_normal((draws, 1, *shape)).astype(np.float32)
            (chunk,) = self.session.run(["actions"], inputs | {"noise": noise})
            self.actions.extend(chunk[0, : self.about["action_steps"]])
        return self.actions.popleft()


if __name__ == "__main__":
    policy = OnnxPolicy(sys.argv[1])
    for _ in range(2 * policy.about["action_steps"]):
        # in place of your sensors
        seen = {key: np.zeros(spec["shape"]) for key, spec in policy.about["observations"].items()}
        print(policy.act(seen))
