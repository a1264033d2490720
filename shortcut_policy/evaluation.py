"""Rollouts of an agent in vector environments, with results that do not depend on how many run at once.

Episode i has the seed `first_seed + i` and the slot `i % slots` of the batch that the agent sees. The batch always has
`slots` rows; `num_envs` consecutive episodes (a wave, each in its own slot) run at a time and other rows are zeros.
"""

import multiprocessing
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from shortcut_policy.statistics import Interval, bootstrap_mean_interval, wilson_interval

__all__ = ["Agent", "EpisodeResult", "Evaluation", "evaluate"]


class Agent(Protocol):
    """Acts for a fixed number of slots, in each of which one episode runs at a time."""

    def reset(self, seeds: Sequence[int | None]) -> None:
        """Begin new episodes; `seeds` has one entry per slot, None where the slot stays unused in this wave."""
        ...

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Map observations (slots, ...) per key to actions (slots, A); rows without a running episode are zeros.

        The arrays are new in every call and may be kept.
        """
        ...


@dataclass(frozen=True)
class EpisodeResult:
    """What one episode came to."""

    seed: int
    slot: int
    max_reward: float  # over the steps of the episode: its score
    success: bool  # `is_success` in the info of any step
    steps: int
    frames: tuple[np.ndarray, ...] | None = field(default=None, compare=False, repr=False)  # steps + 1 images (H, W, 3)


@dataclass(frozen=True)
class Evaluation:
    """The episodes of an evaluation in the order of their seeds, and what they say together."""

    episodes: tuple[EpisodeResult, ...]

    @property
    def num_episodes(self) -> int:
        """Number of episodes, n of the rates and intervals."""
        return len(self.episodes)

    @property
    def scores(self) -> np.ndarray:
        """Score of every episode, (n,) float64."""
        return np.array([episode.max_reward for episode in self.episodes])

    @property
    def mean_score(self) -> float:
        """Mean of the scores."""
        return float(self.scores.mean())

    @property
    def score_interval(self) -> Interval:
        """Bootstrap 95 % interval of the mean score, over the episodes."""
        return bootstrap_mean_interval([self.scores])

    @property
    def success_rate(self) -> float:
        """Share of the episodes that succeeded."""
        return self._successes / self.num_episodes

    @property
    def success_interval(self) -> Interval:
        """Wilson 95 % interval of the success rate."""
        return wilson_interval(self._successes, self.num_episodes)

    @property
    def _successes(self) -> int:
        return sum(episode.success for episode in self.episodes)


def evaluate(
    agent: Agent,
    make_env: Callable[[], gymnasium.Env],
    *,
    episodes: int,
    slots: int,
    num_envs: int,
    first_seed: int = 100_000,
    workers: bool = False,
    max_steps: int | None = None,
    record: Sequence[int] = (),
    progress: Callable[[EpisodeResult], None] | None = None,
) -> Evaluation:
    """Roll out one episode for each seed from `first_seed` up.

    Args:
        agent: Acts for `slots` episodes at once.
        make_env: Builds an environment with Dict observations and Box actions. Workers get it by cloudpickle.
        episodes: How many.
        slots: Rows of every batch that the agent sees. The results may depend on it (through the kernels that the
            agent's network uses for this batch size), but not on `num_envs` or `workers`.
        num_envs: Environments that run at the same time, at most `slots`.
        first_seed: Seed of the first episode.
        workers: Step every environment in a process of its own, which imports what `make_env` needs and no more.
        max_steps: Cap on the steps of an episode; None leaves it to the environment.
        record: Seeds whose episodes are rendered, at the start and after every step, in `rgb_array` mode.
        progress: Called with every result as soon as its episode has ended.

    Raises:
        ValueError: If an argument is out of range, or environment and agent do not fit the above.
        RuntimeError: If an environment can be built here but not in a worker.
    """
    seeds = range(first_seed, first_seed + episodes)
    _check_arguments(seeds, slots, num_envs, max_steps, record)
    num_envs = min(num_envs, episodes)
    results: list[EpisodeResult] = []
    with _vector_env(make_env, num_envs, workers) as envs:
        _check_environment(envs, bool(record))
        for start in range(0, episodes, num_envs):
            wave = [
                _Running(seed, (seed - first_seed) % slots, [] if seed in record else None)
                for seed in seeds[start : start + num_envs]
            ]
            _run_wave(agent, envs, wave, slots, max_steps, progress)
            results.extend(episode.result() for episode in wave)
    return Evaluation(tuple(results))


@dataclass
class _Running:
    """The tally of an episode; row r of the vector environment runs episode r of the wave."""

    seed: int
    slot: int
    frames: list[np.ndarray] | None
    max_reward: float = -np.inf
    success: bool = False
    steps: int = 0

    def result(self) -> EpisodeResult:
        frames = None if self.frames is None else tuple(self.frames)
        return EpisodeResult(self.seed, self.slot, self.max_reward, self.success, self.steps, frames)


def _run_wave(
    agent: Agent,
    envs: VectorEnv,
    wave: Sequence[_Running],
    slots: int,
    max_steps: int | None,
    progress: Callable[[EpisodeResult], None] | None,
) -> None:
    running = np.arange(envs.num_envs) < len(wave)  # (num_envs,)
    slot_of_row = np.array([episode.slot for episode in wave])
    seed_of_slot = {episode.slot: episode.seed for episode in wave}
    agent.reset([seed_of_slot.get(slot) for slot in range(slots)])
    seeds = [episode.seed for episode in wave] + [None] * (envs.num_envs - len(wave))
    filmed = [episode.seed for episode in wave if episode.frames is not None]
    observation, _ = envs.reset(seed=seeds, options={"reset_mask": running.copy(), "film": filmed})
    _film(envs, wave, running)
    while running.any():
        rows = np.flatnonzero(running)
        batch = _batch(envs, observation, rows, slot_of_row[rows], slots)
        actions = np.zeros(envs.action_space.shape, envs.action_space.dtype)
        actions[rows] = _act(agent, batch, (slots, *envs.single_action_space.shape))[slot_of_row[rows]]
        observation, rewards, terminated, truncated, info = envs.step(actions)
        _film(envs, wave, running)
        successes = info.get("is_success", np.zeros(envs.num_envs, bool))
        for row in rows:
            episode = wave[row]
            episode.steps += 1
            episode.max_reward = max(episode.max_reward, float(rewards[row]))
            episode.success |= bool(successes[row])
        ended = running & (terminated | truncated | (wave[rows[0]].steps == max_steps))
        if ended.any():
            envs.reset(options={"reset_mask": ended.copy(), "rest": True})
            running &= ~ended
            if progress is not None:
                for row in np.flatnonzero(ended):
                    progress(wave[row].result())


def _batch(
    envs: VectorEnv,
    observation: Mapping[str, np.ndarray],
    rows: np.ndarray,
    slots_of_rows: np.ndarray,
    slots: int,
) -> dict[str, np.ndarray]:
    batch = {}
    for key, space in envs.single_observation_space.items():
        batch[key] = np.zeros((slots, *space.shape), space.dtype)
        batch[key][slots_of_rows] = observation[key][rows]
    return batch


def _act(agent: Agent, batch: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    actions = np.asarray(agent.act(batch))
    if actions.shape != shape:
        raise ValueError(f"the agent acts with shape {actions.shape}: the environment needs (slots, A) = {shape}")
    return actions


def _film(envs: VectorEnv, wave: Sequence[_Running], running: np.ndarray) -> None:
    filmed = [row for row, episode in enumerate(wave) if running[row] and episode.frames is not None]
    if filmed:
        images = envs.render()
        for row in filmed:
            wave[row].frames.append(np.array(images[row]))


@contextmanager
def _vector_env(make_env: Callable[[], gymnasium.Env], num_envs: int, workers: bool) -> Iterator[VectorEnv]:
    """Yield a vector environment and leave nothing of it behind, whatever happens."""
    factories = [_resting(make_env)] * num_envs
    if not workers:
        envs = SyncVectorEnv(factories, copy=False, autoreset_mode=AutoresetMode.DISABLED)
        try:
            yield envs
        finally:
            envs.close()
        return
    others = multiprocessing.active_children()
    envs = None
    try:
        with _main_module_hidden():
            try:
                envs = AsyncVectorEnv(factories, copy=False, context="spawn", autoreset_mode=AutoresetMode.DISABLED)
            except (EOFError, ConnectionError) as error:
                raise RuntimeError("a worker could not build its environment: see its own error above") from error
        yield envs
        envs.close()
    finally:  # after an error, and even where the constructor failed and left no object to close
        for process in set(multiprocessing.active_children()).difference(others):
            process.terminate()
            process.join()
        if envs is not None:
            envs.closed = True  # else its destructor would talk to the terminated workers


def _resting(make_env: Callable[[], gymnasium.Env]) -> Callable[[], gymnasium.Env]:
    """Wrap what `make_env` builds so that `reset(options={"rest": True})` pauses it until its next reset.

    A vector environment without autoreset steps all its environments and refuses to step one that has ended. Resting
    ones cost nothing. Class and factory are local so that cloudpickle sends them by value: a worker that found them
    by name would have to import this package.
    """

    class Resting(gymnasium.Wrapper):
        resting = False
        filmed = False
        observation: Any = None

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
            options = dict(options or {})
            self.resting = options.pop("rest", False)
            if self.resting:
                return self.observation, {}
            self.filmed = seed in options.pop("film", ())
            self.observation, info = self.env.reset(seed=seed, options=options)
            return self.observation, info

        def step(self, action: np.ndarray) -> tuple[Any, float, bool, bool, dict]:
            if self.resting:
                return self.observation, 0.0, False, False, {}
            self.observation, reward, terminated, truncated, info = self.env.step(action)
            return self.observation, reward, terminated, truncated, info

        def render(self) -> Any:
            return self.env.render() if self.filmed and not self.resting else None

    return lambda: Resting(make_env())


@contextmanager
def _main_module_hidden() -> Iterator[None]:
    """Keep new worker processes from importing the running script, and with it torch.

    They would do so to unpickle its objects, but cloudpickle sends the objects of `__main__` by value.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _check_arguments(seeds: range, slots: int, num_envs: int, max_steps: int | None, record: Sequence[int]) -> None:
    if len(seeds) < 1:
        raise ValueError(f"episodes={seeds.stop - seeds.start} evaluates nothing: give at least 1")
    if not 1 <= num_envs <= slots:
        raise ValueError(f"num_envs={num_envs} does not fit slots={slots}: each running episode needs its slot")
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"max_steps={max_steps} leaves no step to make: give at least 1, or None")
    for seed in record:
        if seed not in seeds:
            raise ValueError(f"seed {seed} to record is not evaluated: choose from {seeds.start} to {seeds.stop - 1}")


def _check_environment(envs: VectorEnv, recording: bool) -> None:
    observation, action = envs.single_observation_space, envs.single_action_space
    if not isinstance(observation, Dict) or any(space.shape is None for space in observation.values()):
        raise ValueError(f"the environment observes {observation}: evaluate needs a Dict of arrays")
    if not isinstance(action, Box):
        raise ValueError(f"the environment's actions are {action}: evaluate needs a Box")
    if recording and envs.render_mode != "rgb_array":
        raise ValueError(f"render_mode={envs.render_mode!r} records nothing: make the environment with 'rgb_array'")
