"""Rollouts of an agent in several environments, with results that do not depend on how many run at once.

Episode i has the seed `first_seed + i` and the slot `i % slots` of the batch that the agent sees. The batch always has
`slots` rows; `num_envs` consecutive episodes (a wave, each in its own slot) run at a time and other rows are zeros.

    evaluation = evaluate(agent, make_env, episodes=50, slots=50, num_envs=50)

    with open_environments(make_env, num_envs=50, workers=2) as environments:  # built once for several evaluations
        for agent in agents:
            evaluation = evaluate_in(environments, agent, episodes=50, slots=50)
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict

from envs.hosting import EnvironmentHost, HostSpec, Outcome
from shortcut_policy.episode_results import EpisodeResult, Evaluation
from shortcut_policy.rollout_workers import RolloutWorkers

Environments = EnvironmentHost | RolloutWorkers
"""Environments that are open: in this process or in workers."""


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


def evaluate(
    agent: Agent,
    make_env: Callable[[], gymnasium.Env],
    *,
    episodes: int,
    slots: int,
    num_envs: int,
    workers: int = 0,
    **options: Any,
) -> Evaluation:
    """Build environments, roll out one episode for each seed, close them: `open_environments` and `evaluate_in`.

    Args:
        agent: Acts for `slots` episodes at once.
        make_env: See `open_environments`.
        episodes, slots: See `evaluate_in`.
        num_envs: Environments that run at the same time, in lockstep; at most `slots`.
        workers: See `open_environments`.
        options: The others of `evaluate_in`.

    Raises:
        ValueError, RuntimeError: As the two of them do.
    """
    _check_arguments(episodes, slots, num_envs)
    with open_environments(make_env, min(num_envs, episodes), workers) as environments:
        return evaluate_in(environments, agent, episodes=episodes, slots=slots, **options)


@contextmanager
def open_environments(make_env: Callable[[], gymnasium.Env], num_envs: int, workers: int = 0) -> Iterator[Environments]:
    """Build environments for evaluations, and close them at the end.

    Args:
        make_env: Builds an environment with Dict observations and Box actions. Workers get it by cloudpickle.
        num_envs: How many run at the same time, in lockstep.
        workers: Processes that share the environments, at most one per environment, and import what `make_env`
            needs and no more; 0 runs all in this process.

    Raises:
        ValueError: If a number is out of range.
        RuntimeError: If a worker dies or fails while it builds its environments.
    """
    if num_envs < 1:
        raise ValueError(f"num_envs={num_envs} runs nothing: give at least 1")
    if workers < 0:
        raise ValueError(f"workers={workers} are no processes: give their number, or 0 for none beside this one")
    host = (
        RolloutWorkers(make_env, num_envs, min(workers, num_envs)) if workers else EnvironmentHost(make_env, num_envs)
    )
    with host:
        yield host


def evaluate_in(
    environments: Environments,
    agent: Agent,
    *,
    episodes: int,
    slots: int,
    first_seed: int = 100_000,
    only: Sequence[int] | None = None,
    max_steps: int | None = None,
    record: Sequence[int] = (),
    progress: Callable[[EpisodeResult], None] | None = None,
    action_representation: str | None = None,
) -> Evaluation:
    """Roll out one episode for each seed from `first_seed` up, in environments that stay open.

    Where a worker process dies, a RuntimeWarning says so, a new one takes its place, and the episodes that were lost
    run again, once.

    Args:
        environments: From `open_environments`.
        agent: Acts for `slots` episodes at once.
        episodes: How many.
        slots: Rows of every batch that the agent sees. The results may depend on it (through the kernels that the
            agent's network uses for this batch size), but not on the number of environments or workers.
        first_seed: Seed of the first episode.
        only: Run only the episodes with these seeds, each as it is among all of them; None runs all.
        max_steps: Cap on the steps of an episode; None leaves it to the environment.
        record: Seeds whose episodes are rendered, at the start and after every step, in `rgb_array` mode.
        progress: Called with every result as soon as its episode has ended.
        action_representation: What the agent's actions are, for an environment whose metadata name under this key
            what it takes ("as_stored" where they do not); None skips the comparison.

    Raises:
        ValueError: If an argument is out of range, or environment and agent do not fit the above.
        RuntimeError: If an environment raises an exception in a worker, which is quoted with its traceback; if an
            episode's worker dies a second time.
    """
    num_envs = min(environments.num_envs, episodes)
    _check_arguments(episodes, slots, num_envs)
    if max_steps is not None and max_steps < 1:
        raise ValueError(f"max_steps={max_steps} leaves no step to make: give at least 1, or None")
    seeds = range(first_seed, first_seed + episodes)
    chosen = seeds if only is None else sorted(set(only))
    if not chosen:
        raise ValueError("only=[] evaluates nothing: name seeds, or leave it out")
    _check_seeds("to run", chosen, seeds)
    _check_seeds("to record", record, chosen)
    _check_environment(environments.spec, bool(record), action_representation)
    results: list[EpisodeResult] = []
    for together in _waves(chosen, num_envs, slots):
        wave = [_Running(seed, (seed - first_seed) % slots, [] if seed in record else None) for seed in together]
        _run_wave(agent, environments, wave, slots, max_steps, progress)
        again = [episode.start_again() for episode in wave if episode.lost]
        if again:
            _run_wave(agent, environments, again, slots, max_steps, progress)
        finished = [episode for episode in (*wave, *again) if not episode.lost]
        results.extend(episode.result() for episode in sorted(finished, key=lambda episode: episode.seed))
    return Evaluation(tuple(results), environments.spec.render_fps)


@dataclass
class _Running:
    """The tally of an episode."""

    seed: int
    slot: int
    frames: list[np.ndarray] | None
    rerun: bool = False
    lost: bool = False
    ended: bool = False
    max_reward: float = -np.inf
    success: bool | None = None
    steps: int = 0

    def start_again(self) -> "_Running":
        return _Running(self.seed, self.slot, None if self.frames is None else [], rerun=True)

    def add(self, record: np.void, max_steps: int | None) -> None:
        self.steps += 1
        self.max_reward = max(self.max_reward, float(record["reward"]))
        if record["told"]:
            self.success = bool(self.success or record["success"])
        self.ended = bool(record["terminated"] or record["truncated"]) or self.steps == max_steps

    def result(self) -> EpisodeResult:
        frames = None if self.frames is None else tuple(self.frames)
        return EpisodeResult(self.seed, self.slot, self.max_reward, self.success, self.steps, self.rerun, frames)


def _run_wave(
    agent: Agent,
    host: Environments,
    wave: Sequence[_Running],
    slots: int,
    max_steps: int | None,
    progress: Callable[[EpisodeResult], None] | None,
) -> None:
    """Run every episode to its end or loss; row r of the host runs episode r of the wave."""
    seed_of_slot = {episode.slot: episode.seed for episode in wave}
    agent.reset([seed_of_slot.get(slot) for slot in range(slots)])
    seeds, filmed = [episode.seed for episode in wave], [episode.frames is not None for episode in wave]
    slot_of_row = np.array([episode.slot for episode in wave])
    action_space = host.spec.action_space
    rows, records = _accept(wave, np.arange(len(wave)), host.reset(range(len(wave)), seeds, filmed))
    while rows.size:
        batch = _batch(host.spec, records["observation"], slot_of_row[rows], slots)
        actions = _act(agent, batch, (slots, *action_space.shape))[slot_of_row[rows]]
        rows, records = _accept(wave, rows, host.step(rows, actions.astype(action_space.dtype)))
        for row, record in zip(rows, records, strict=True):
            wave[row].add(record, max_steps)
            if wave[row].ended and progress is not None:
                progress(wave[row].result())
        going = np.array([not wave[row].ended for row in rows], bool)
        rows, records = rows[going], records[going]


def _waves(seeds: Sequence[int], num_envs: int, slots: int) -> Iterator[list[int]]:
    """Cut ascending seeds into groups of at most `num_envs`, each with all its episodes in different slots."""
    wave: list[int] = []
    for seed in seeds:
        if wave and (len(wave) == num_envs or seed - wave[0] >= slots):
            yield wave
            wave = []
        wave.append(seed)
    yield wave


def _accept(wave: Sequence[_Running], rows: np.ndarray, outcome: Outcome) -> tuple[np.ndarray, np.ndarray]:
    """Keep the frames, mark what is lost; return the other rows and their records."""
    for i, image in outcome.frames.items():
        wave[rows[i]].frames.append(image)
    lost = outcome.records["lost"]
    twice = [str(wave[row].seed) for row in rows[lost] if wave[row].rerun]
    if twice:
        raise RuntimeError(
            f"rollout workers died twice on the episodes with seed {', '.join(twice)}: see the warnings above, and run "
            "these with workers=0 to find out why"
        )
    for row in rows[lost]:
        wave[row].lost = True
    return rows[~lost], outcome.records[~lost]


def _batch(spec: HostSpec, observation: np.ndarray, slots_of_rows: np.ndarray, slots: int) -> dict[str, np.ndarray]:
    batch = {}
    for key, space in spec.observation_space.items():
        batch[key] = np.zeros((slots, *space.shape), space.dtype)
        batch[key][slots_of_rows] = observation[key]
    return batch


def _act(agent: Agent, batch: Mapping[str, np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    actions = np.asarray(agent.act(batch))
    if actions.shape != shape:
        raise ValueError(f"the agent acts with shape {actions.shape}: the environment needs (slots, A) = {shape}")
    return actions


def _check_arguments(episodes: int, slots: int, num_envs: int) -> None:
    if episodes < 1:
        raise ValueError(f"episodes={episodes} evaluates nothing: give at least 1")
    if not 1 <= num_envs <= slots:
        raise ValueError(f"num_envs={num_envs} does not fit slots={slots}: each running episode needs its slot")


def _check_seeds(purpose: str, seeds: Sequence[int], among: Sequence[int]) -> None:
    for seed in seeds:
        if seed not in among:
            raise ValueError(f"seed {seed} {purpose} is not evaluated: choose from {among[0]} to {among[-1]}")


def _check_environment(spec: HostSpec, recording: bool, action_representation: str | None) -> None:
    observation, action = spec.observation_space, spec.action_space
    if not isinstance(observation, Dict) or any(space.shape is None for space in observation.values()):
        raise ValueError(f"the environment observes {observation}: evaluate needs a Dict of arrays")
    if not isinstance(action, Box):
        raise ValueError(f"the environment's actions are {action}: evaluate needs a Box")
    if recording and spec.render_mode != "rgb_array":
        raise ValueError(f"render_mode={spec.render_mode!r} records nothing: make the environment with 'rgb_array'")
    if action_representation not in (None, spec.action_representation):
        raise ValueError(
            f"the policy's actions are {action_representation!r}, the environment takes "
            f"{spec.action_representation!r}: make the environment with the actions of the policy's data"
        )
