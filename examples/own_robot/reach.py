"""A robot to be replaced by yours: seen from above, a blue disc shall reach one of two red dots, whichever."""

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

SIDE = 64  # of the camera's image, px


class Reach(gymnasium.Env):
    """Observes `camera` (64, 64, 3) uint8 and `position` (2,) in [0, 1]; an action (2,) is a step of at most 0.1."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium's convention)
    render_mode = "rgb_array"
    observation_space = Dict(camera=Box(0, 255, (SIDE, SIDE, 3), np.uint8), position=Box(0, 1, (2,), np.float32))
    action_space = Box(-0.1, 0.1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        """Draw the robot and two dots, no two of them closer than 0.3."""
        super().reset(seed=seed)
        while True:
            points = self.np_random.uniform(0.1, 0.9, (3, 2))
            if min(np.linalg.norm(points - np.roll(points, 1, axis=0), axis=1)) > 0.3:
                break
        self.position, self.dots, self.steps = points[0], points[1:], 0
        return self.observe(), {}

    def step(self, action):
        """Move; the episode ends upon a dot, or after 50 steps."""
        self.position = np.clip(self.position + np.clip(action, -0.1, 0.1), 0, 1)
        self.steps += 1
        success = bool(np.linalg.norm(self.dots - self.position, axis=1).min() < 0.05)
        return self.observe(), float(success), success, self.steps >= 50, {"is_success": success}

    def observe(self):
        """What the robot's sensors say."""
        return {"camera": self.render(), "position": self.position.astype(np.float32)}

    def render(self):
        """The scene from above."""
        image = np.full((SIDE, SIDE, 3), 255, np.uint8)
        y, x = (np.mgrid[:SIDE, :SIDE] + 0.5) / SIDE
        for (at_x, at_y), color in ((self.dots[0], "red"), (self.dots[1], "red"), (self.position, "blue")):
            disc = (x - at_x) ** 2 + (y - at_y) ** 2 < 0.05**2
            image[disc] = (220, 40, 40) if color == "red" else (40, 60, 220)
        return image
