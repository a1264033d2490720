"""A robot-learning run put together: data, policy, trainer, and what is measured on the way."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from shortcut_policy.agent import PolicyAgent
from shortcut_policy.config import to_mapping
from shortcut_policy.data.batches import WindowBatches
from shortcut_policy.data.episodes import Episodes
from shortcut_policy.data.windows import make_windows
from shortcut_policy.data.zarr_replay import read_zarr
from shortcut_policy.experiment_config import DataConfig, EnvironmentConfig, ExperimentConfig
from shortcut_policy.policy import Policy
from shortcut_policy.provenance import current_command, current_commit, describe_hardware
from shortcut_policy.training.distributed import Processes, join_processes
from shortcut_policy.training.loop import Hook, Trainer
from shortcut_policy.training.state import Progress
from shortcut_policy.validation import held_out_loss, validate

if TYPE_CHECKING:
    from gymnasium import Env

    from shortcut_policy.evaluation import Evaluation

SLOTS = 50
"""Rows of the padded batch in which episodes are evaluated; part of what makes a score reproducible."""


def read_episodes(config: DataConfig) -> Episodes:
    """Read the demonstrations into RAM.

    Raises:
        FileNotFoundError, ValueError: they are missing or damaged.
    """
    return read_zarr(Path(config.path), config.observations, config.action)


def roll_out(
    policy: Policy,
    environment: EnvironmentConfig,
    *,
    num_steps: int,
    episodes: int,
    first_seed: int,
    num_envs: int = SLOTS,
    record: tuple[int, ...] = (),
) -> Evaluation:
    """Evaluate a policy in its environment, with `num_steps` network evaluations per chunk."""
    from shortcut_policy.evaluation import evaluate

    return evaluate(
        PolicyAgent(policy, SLOTS, num_steps),
        _make_environment(environment, **({"render_mode": "rgb_array"} if record else {})),
        episodes=episodes,
        first_seed=first_seed,
        slots=SLOTS,
        num_envs=min(num_envs, episodes, SLOTS),
        workers=environment.workers,
        record=record,
    )


def _make_environment(environment: EnvironmentConfig, **options: object) -> Callable[[], Env]:
    # here: a machine that only trains needs no gymnasium
    import envs

    return functools.partial(envs.make, environment.name, **{**environment.options, **options})


def train(config: ExperimentConfig) -> Progress:
    """Train the policy of `config`, or go on where its run was interrupted.

    Raises:
        FileNotFoundError, ValueError: data or values that do not fit.
        FileExistsError: the output folder holds something else.
        TrainingInterrupted, TrainingDiverged: see `Trainer.run`.
    """
    episodes = read_episodes(config.data)
    training, held_out = episodes.split(config.data.valid_fraction, config.data.split_seed)
    with join_processes(config.device) as processes:
        return _make_trainer(config, training, held_out, processes).run()


def _make_trainer(
    config: ExperimentConfig, training: Episodes, held_out: Episodes | None, processes: Processes
) -> Trainer:
    policy = Policy.for_episodes(
        training,
        seed=config.trainer.seed,
        **vars(config.policy),
        network=config.network,
        objective=config.objective,
        metadata={
            "task": config.task,
            "environment": to_mapping(config.environment),
            "training": {
                "command": current_command(),
                "commit": current_commit(),
                "hardware": describe_hardware(processes.device),
                "trainer": to_mapping(config.trainer),
            },
        },
    ).to(processes.device)
    batches = _batches(config, training, processes.device)
    hooks = []
    if held_out is not None:
        valid = _batches(config, held_out, processes.device)
        held_out_loss(policy, valid, config.validation.windows)  # what does not fit is said now, not at the first hook
        hooks.append(
            Hook(
                config.validation.every,
                lambda step, network: validate(
                    policy, network, valid, config.validation.windows, config.validation.num_steps
                ),
            )
        )
    if config.rollout.every and config.environment is not None:
        _make_environment(config.environment)().close()
        hooks.append(Hook(config.rollout.every, lambda step, network: _rollout_scores(config, policy, network)))
    return Trainer(
        policy.network,
        policy.objective,
        lambda step, rows: policy.prepare(batches.batch(step, rows)),
        config.trainer,
        output=config.folder,
        save_model=lambda folder, network: policy.with_network(network).save_pretrained(folder),
        hooks=hooks,
        processes=processes,
        run_config=to_mapping(config),
    )


def _batches(config: ExperimentConfig, episodes: Episodes, device: torch.device) -> WindowBatches:
    windows = make_windows(
        episodes.episode_ends,
        observation_steps=config.policy.observation_steps,
        horizon=config.policy.horizon,
        action_offset=config.policy.action_offset,
        pad_after=config.data.pad_after,
    )
    return WindowBatches(episodes, windows, config.trainer.batch_size, config.trainer.seed, device)


def _rollout_scores(config: ExperimentConfig, policy: Policy, network: nn.Module) -> Mapping[str, float]:
    assert config.environment is not None
    scores = {}
    for steps in config.rollout.num_steps:
        evaluation = roll_out(
            policy.with_network(network),
            config.environment,
            num_steps=steps,
            episodes=config.rollout.episodes,
            first_seed=config.rollout.first_seed,
        )
        scores[f"rollout/score_{steps}_steps"] = evaluation.mean_score
        scores[f"rollout/success_{steps}_steps"] = evaluation.success_rate
    return scores
