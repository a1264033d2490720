"""An expert's episode from a seed, recorded for a data set."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import gymnasium
import numpy as np

from envs.experts import make_expert

if TYPE_CHECKING:
    from envs.experts.motion import Settings

__all__ = ["Episode", "run_episode"]

_STEPS_AFTER_SUCCESS = 5  # so that policies learn to stay there, too
_EXPERT = 1  # the expert's stream of the seed: the environment has drawn its initial state from the seed itself


@dataclass(frozen=True, eq=False)
class Episode:
    """What an expert did in T steps.

    Attributes:
        way: which of the task's ways it chose.
        success: whether the task was done, and still was at the end.
        model: the simulated model, MuJoCo XML.
        states: (T, 1 + nq + nv) float64 of the simulator before each action.
        observations: key -> (T, ...), before each action, as a policy is shown them.
        actions: (T, 7 arms) float64 delta actions in [-1, 1].
        absolute_actions: (T, 7 arms) float64, their goals in the world.
        rewards: (T,) float64, of what each action led to.
        successes: (T,) bool, whether the task was done there.
    """

    way: str
    success: bool
    model: str
    states: np.ndarray
    observations: Mapping[str, np.ndarray]
    actions: np.ndarray
    absolute_actions: np.ndarray
    rewards: np.ndarray
    successes: np.ndarray


def run_episode(env: gymnasium.Env, task: str, seed: int, settings: "Settings | None" = None) -> Episode:
    """Let the task's expert act until some steps after its success, or until the environment's cap of steps.

    The episode is a pure function of task, seed and settings, whatever the environment has done before.

    Args:
        env: `envs.make(task)`, with delta poses as actions.
        task: its short name.
        seed: of the initial state and of all that the expert draws.
        settings: of the expert; the task's own by default.

    Raises:
        ValueError: the task has no expert, or the environment takes other actions.
    """
    simulated, cap = env.unwrapped, env.spec.max_episode_steps
    observation, _ = simulated.reset(seed=seed)
    expert = make_expert(task, simulated, np.random.default_rng((seed, _EXPERT)), settings)
    model = simulated.model
    states, observations, actions, absolute, rewards, successes = [], [], [], [], [], []
    while len(actions) < cap and sum(successes[-1 - _STEPS_AFTER_SUCCESS :]) <= _STEPS_AFTER_SUCCESS:
        action = expert.act()
        states.append(simulated.state)
        observations.append(observation)
        actions.append(action)
        absolute.append(simulated.absolute_action(action))
        observation, reward, success, *_ = simulated.step(action)
        rewards.append(reward)
        successes.append(success)
    return Episode(
        expert.way,
        successes[-1],
        model,
        np.array(states),
        {key: np.stack([o[key] for o in observations]) for key in observation},
        np.array(actions),
        np.array(absolute),
        np.array(rewards),
        np.array(successes),
    )
