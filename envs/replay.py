"""Replays recorded demonstrations in the simulator: what they showed, and whether their actions still do the task."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.spatial.transform import Rotation

from envs.env_args import RecordedEnvironment
from envs.osc_pose import hold_rotation
from envs.robosuite import RobosuiteEnv

__all__ = ["DemoReplayer", "OpenLoop", "ReplayedDemo"]

_COLUMNS_PER_ARM = 7


@dataclass(frozen=True)
class OpenLoop:
    """What came of running a demonstration's actions open loop from its first state.

    Errors are distances of the end effectors' poses (of all arms) from those of the recorded states, over all states
    but the first, which is given; 0 for a single step.

    Attributes:
        success: whether the task was done after any of the actions.
        max_position_error: m; likewise the mean.
        max_rotation_error: rad; likewise the mean.
    """

    success: bool
    max_position_error: float
    mean_position_error: float
    max_rotation_error: float
    mean_rotation_error: float


@dataclass(frozen=True, eq=False)
class ReplayedDemo:
    """A demonstration of T steps as the installed simulator shows it.

    Attributes:
        observations: key -> (T + 1, ...), at every recorded state and after the last action.
        actions: (T, 7 arms) float64, the recorded delta actions within the range to which the controller clips them.
        absolute_actions: (T, 7 arms) float64, their goals in the world.
        rewards: (T,) float64, of what each action led to.
        successes: (T,) bool, whether the task was done there.
        delta: the recorded actions, run by a controller that takes deltas.
        absolute: `absolute_actions`, run by a controller that takes goals in the world.
    """

    observations: Mapping[str, np.ndarray]
    actions: np.ndarray
    absolute_actions: np.ndarray
    rewards: np.ndarray
    successes: np.ndarray
    delta: OpenLoop
    absolute: OpenLoop


class DemoReplayer:
    """The simulators that a recording needs; a context manager that closes them.

    What it says of a demonstration depends on the arguments alone, not on the demonstrations before.
    """

    def __init__(self, env_args: Mapping[str, Any], cameras: Sequence[str] = (), camera_size: int = 84) -> None:
        """Build the simulators.

        Args:
            env_args: of the recording, see `RobosuiteEnv`.
            cameras: which become observations; needs GL.
            camera_size: side of these images, px.

        Raises:
            ValueError: the environment, a controller or a camera does not exist or fit.
            ImportError: robosuite is not installed, or images are asked for and there is no GL.
        """
        self._holds_rotation = RecordedEnvironment.from_env_args(env_args).is_before_1_5
        with ExitStack() as built:
            self._delta = RobosuiteEnv(env_args=env_args, actions="delta_pose")
            built.callback(self._delta.close)
            self._absolute = RobosuiteEnv(env_args=env_args, actions="absolute_pose")
            built.callback(self._absolute.close)
            self._shown = self._delta
            if cameras:  # in an environment of their own: there, every step draws
                self._shown = RobosuiteEnv(env_args=env_args, cameras=cameras, camera_size=camera_size)
                built.callback(self._shown.close)
            self._built = built.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._built.close()

    def replay(self, model: str, states: np.ndarray, actions: np.ndarray) -> ReplayedDemo:
        """Show the recorded states, make absolute actions, and run both kinds of actions.

        Args:
            model: the recorded model, MuJoCo XML.
            states: (T, 1 + nq + nv) of the simulator before each action.
            actions: (T, 7 arms) delta actions.

        Raises:
            ValueError: the model cannot be simulated, or states or actions do not fit it.
        """
        width = self._delta.action_space.shape[0]
        if actions.shape[1] != width:
            raise ValueError(f"actions are {actions.shape[1]} wide, but the recorded environment takes {width}")
        actions = np.clip(actions, self._delta.action_space.low, self._delta.action_space.high)
        start = {"model": model, "state": states[0]}
        observations, rewards, successes, absolute = [], [], [], []
        self._shown.reset(seed=0, options=start)
        for t, (state, action) in enumerate(zip(states, actions, strict=True)):
            observations.append(self._shown.place(state))
            if t > 0:
                rewards.append(float(self._shown.simulator.reward()))
                successes.append(self._shown.is_success)
            absolute.append(self._shown.absolute_action(action))
        last, reward, *_, info = self._shown.step(actions[-1])
        absolute = self._held(np.array(absolute), actions)
        return ReplayedDemo(
            observations={key: np.stack([*(o[key] for o in observations), last[key]]) for key in last},
            actions=actions,
            absolute_actions=absolute,
            rewards=np.array([*rewards, reward]),
            successes=np.array([*successes, info["is_success"]]),
            delta=_open_loop(self._delta, start, states, actions),
            absolute=_open_loop(self._absolute, start, states, absolute),
        )

    def _held(self, absolute: np.ndarray, delta: np.ndarray) -> np.ndarray:
        if not self._holds_rotation:
            return absolute
        arms = absolute.shape[1] // _COLUMNS_PER_ARM
        parts = zip(np.split(absolute, arms, axis=1), np.split(delta, arms, axis=1), strict=True)
        return np.concatenate([hold_rotation(goals, steps) for goals, steps in parts], axis=1)


def _open_loop(env: RobosuiteEnv, start: dict[str, Any], states: np.ndarray, actions: np.ndarray) -> OpenLoop:
    env.reset(seed=0, options=start)
    success, reached = False, []
    for action in actions:
        *_, info = env.step(action)
        success = success or info["is_success"]
        reached.append(env.state)
    if len(states) == 1:
        return OpenLoop(success, 0.0, 0.0, 0.0, 0.0)
    # by the states, because after a step the simulator's poses are one physics step older
    position, rotation = _poses(env, reached[:-1])
    recorded_position, recorded_rotation = _poses(env, states[1:])
    distance = np.linalg.norm(position - recorded_position, axis=1)
    angle = (rotation * recorded_rotation.inv()).magnitude()
    return OpenLoop(success, *(float(value) for e in (distance, angle) for value in (e.max(), e.mean())))


def _poses(env: RobosuiteEnv, states: Sequence[np.ndarray]) -> tuple[np.ndarray, Rotation]:
    """The end effectors in n states: positions (n * arms, 3) and as many rotations."""
    positions, rotations = [], []
    for state in states:
        env.place(state)
        data = env.simulator.sim.data
        for robot, arm in env.arms:
            site = robot.eef_site_id[arm]
            positions.append(data.site_xpos[site].copy())
            rotations.append(data.site_xmat[site].reshape(3, 3).copy())
    return np.array(positions), Rotation.from_matrix(np.array(rotations))
