"""A gymnasium environment in a robot's place: its simulated time passes when it is told to act."""

import threading

import gymnasium
import numpy as np

from envs.success import told_success

__all__ = ["GymRobot"]


class GymRobot:
    """One episode of an environment with Dict observations and Box actions; a `Robot` for control loops.

    Attributes:
        ended: set when the episode ends, upon which actions do nothing any more; a loop's `stop`.
        max_reward: over the steps of the episode.
        success: whether `is_success` was true in the info of any step; None while no info had it.
    """

    def __init__(self, env: gymnasium.Env, seed: int | None = None) -> None:
        """Begin the episode of a seed."""
        self._env = env
        self._observation, _ = env.reset(seed=seed)
        self.ended = threading.Event()
        self.max_reward = -np.inf
        self.success: bool | None = None

    def observe(self) -> dict[str, np.ndarray]:
        """The observation after the last step."""
        return self._observation

    def act(self, action: np.ndarray) -> None:
        """Make a step with an action (A,)."""
        if self.ended.is_set():
            return
        self._observation, reward, terminated, truncated, info = self._env.step(action)
        self.max_reward = max(self.max_reward, float(reward))
        success = told_success(info)
        if success is not None:
            self.success = bool(self.success or success)
        if terminated or truncated:
            self.ended.set()
