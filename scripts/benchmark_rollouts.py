"""What rollouts cost beside the bare simulator: `python scripts/benchmark_rollouts.py task=lift workers=2 num_envs=20`.

`evaluate` with an agent that only replays random actions against the same number of processes that each loop over
their simulators with the same actions from the same initial states. A turn is over when the slowest process has made
its steps. Both run in turns, so that a noisy machine is noisy for both; building and resetting are not timed.
"""

import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Dict
from hydra_command import command

import envs
from shortcut_policy.config import from_mapping
from shortcut_policy.evaluation import evaluate
from shortcut_policy.experiment_config import EnvironmentConfig
from shortcut_policy.provenance import current_command, current_commit, describe_hardware, installed_versions
from shortcut_policy.rollout_workers import RolloutWorkers


@dataclass(frozen=True)
class BenchmarkConfig:
    """The values of `configs/benchmark_rollouts.yaml`, and the environment of the task."""

    environment: EnvironmentConfig
    workers: int
    num_envs: int
    steps: int
    turns: int
    first_seed: int
    result: str | None
    overwrite: bool

    def __post_init__(self) -> None:
        for name in ("workers", "steps", "turns"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.num_envs < 1 or self.num_envs % self.workers:
            raise ValueError(f"num_envs={self.num_envs} must be a multiple of workers={self.workers}")


def draw_actions(space: Box, seed: int, steps: int) -> np.ndarray:
    """Random actions (steps, A) of an episode, uniform within the bounds, or within [-1, 1] where there are none."""
    low, high = np.where(np.isfinite(space.low), space.low, -1), np.where(np.isfinite(space.high), space.high, 1)
    return np.random.default_rng(seed).uniform(low, high, (steps, *space.shape)).astype(space.dtype)


class BareSimulators(gymnasium.Env):
    """The simulators of one process: `reset(seed=s)` gives number i the seed s + i * stride.

    One step is a whole turn: every simulator makes its steps, one after the other. The reward is the speed in
    simulator steps per second.
    """

    def __init__(self, make_env: Callable[[], gymnasium.Env], count: int, stride: int, steps: int) -> None:
        self.envs = [make_env() for _ in range(count)]
        self.stride, self.steps = stride, steps
        self.observation_space, self.action_space = Dict(), Box(0, 1, (1,))

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict, dict]:
        """Reset every simulator and draw its actions."""
        assert seed is not None
        self.actions = []
        for i, env in enumerate(self.envs):
            env.reset(seed=seed + i * self.stride)
            self.actions.append(draw_actions(env.action_space, seed + i * self.stride, self.steps))
        return {}, {}

    def step(self, action: np.ndarray) -> tuple[dict, float, bool, bool, dict]:
        """Make a turn."""
        started = time.perf_counter()
        for env, actions in zip(self.envs, self.actions, strict=True):
            step = env.unwrapped.simulator.step
            for values in actions:
                step(values)
        speed = len(self.envs) * self.steps / (time.perf_counter() - started)
        return {}, speed, True, False, {}

    def close(self) -> None:
        """Close every simulator."""
        for env in self.envs:
            env.close()


class ReplayingAgent:
    """Replays random actions, and notes when; before every wave it lets the bare simulators have their turn."""

    def __init__(self, bare: RolloutWorkers, processes: int, action_space: Box, steps: int) -> None:
        self.bare, self.processes, self.action_space, self.steps = bare, processes, action_space, steps
        self.bare_speeds: list[float] = []  # simulator steps per second and process, of every turn
        self.times: list[list[float]] = []  # s, of every action of every turn

    def reset(self, seeds: Sequence[int | None]) -> None:
        """Let the simulators run with the same seeds and actions as the episodes that follow."""
        rows = range(self.processes)
        self.bare.reset(rows, [seeds[row] for row in rows], [False] * self.processes)
        outcome = self.bare.step(rows, np.zeros((self.processes, 1), np.float32))
        self.bare_speeds.append(float(outcome.records["reward"].min()))
        # one action more than the simulators get: the last one ends the episode
        self.actions = np.stack([draw_actions(self.action_space, seed, self.steps + 1) for seed in seeds], axis=1)
        self.times.append([])

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """The next actions (slots, A)."""
        self.times[-1].append(time.perf_counter())
        return self.actions[len(self.times[-1]) - 1]


def measure(config: BenchmarkConfig) -> tuple[np.ndarray, np.ndarray]:
    """Steps per second and process of the bare simulators and of the rollouts, (turns,) each."""
    environment = config.environment
    options = {**environment.options, "max_steps": config.steps + 1}
    make_env = functools.partial(envs.make, environment.name, **options)
    count = config.num_envs // config.workers
    make_bare = functools.partial(BareSimulators, make_env, count, config.workers, config.steps)
    env = make_env()
    action_space = env.action_space
    env.close()
    with RolloutWorkers(make_bare, config.workers, config.workers) as bare:
        agent = ReplayingAgent(bare, config.workers, action_space, config.steps)
        evaluation = evaluate(
            agent,
            make_env,
            episodes=(1 + config.turns) * config.num_envs,
            slots=config.num_envs,
            num_envs=config.num_envs,
            first_seed=config.first_seed,
            workers=config.workers,
        )
    if evaluation.reruns:
        raise RuntimeError("a worker died: the figures would be wrong")
    shortest = min(episode.steps for episode in evaluation.episodes)
    if shortest <= config.steps:
        raise ValueError(f"steps={config.steps} is too many: an episode ended after {shortest}")
    seconds = np.array([times[-1] - times[0] for times in agent.times[1:]])
    return np.array(agent.bare_speeds[1:]), count * config.steps / seconds


@command("benchmark_rollouts")
def main(values: dict[str, Any]) -> None:
    """Measure both and compare."""
    config = from_mapping(BenchmarkConfig, {field.name: values[field.name] for field in fields(BenchmarkConfig)})
    target = Path(config.result) if config.result else None
    if target and target.exists() and not config.overwrite:
        raise FileExistsError(f"{target} exists: choose another result=, or say overwrite=true")
    bare, rollouts = measure(config)
    ratios = rollouts / bare
    low, ratio, high = np.quantile(ratios, [0, 0.5, 1]).round(4)  # as the file has them
    print(f"{config.environment.name}, {config.num_envs} environments in {config.workers} processes")
    print(f"  bare simulator  {np.median(bare):9.1f} steps/s per core")
    print(f"  rollout workers {np.median(rollouts):9.1f} steps/s per core")
    print(f"  ratio {ratio:.3f}, from {low:.3f} to {high:.3f} over {config.turns} turns")
    if target:
        document = {
            "name": target.stem,
            "command": current_command(),
            "commit": current_commit(),
            "hardware": describe_hardware(torch.device("cpu")),
            "versions": installed_versions(),
            "environment": config.environment.name,
            "options": config.environment.options,
            "workers": config.workers,
            "num_envs": config.num_envs,
            "steps": config.steps,
            "turns": config.turns,
            "steps_per_second_per_core_p50": {
                "bare simulator": round(float(np.median(bare)), 1),
                "rollout workers": round(float(np.median(rollouts)), 1),
            },
            "ratio": float(ratio),
            "ratios": [round(float(value), 4) for value in ratios],
        }
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
