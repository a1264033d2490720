"""A robot-learning run put together: data, policy, trainer, and what is measured on the way."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn

from shortcut_policy.agent import ActionQueue, PolicyAgent
from shortcut_policy.config import to_mapping
from shortcut_policy.data.batches import WindowBatches, WindowSource
from shortcut_policy.data.env_args import ROBOSUITE, EnvArgs, check_codec, read_env_args
from shortcut_policy.data.episodes import Episodes
from shortcut_policy.data.robomimic_hdf5 import read_robomimic
from shortcut_policy.data.stored_images import StoredImages, find_images
from shortcut_policy.data.streamed_windows import StreamedWindows
from shortcut_policy.data.symmetry import with_symmetric_copies
from shortcut_policy.data.windows import make_windows
from shortcut_policy.data.zarr_replay import read_zarr
from shortcut_policy.experiment_config import DataConfig, EnvironmentConfig, ExperimentConfig
from shortcut_policy.frozen_features import with_features
from shortcut_policy.policy import Policy
from shortcut_policy.policy_batches import PolicyBatches
from shortcut_policy.provenance import current_command, current_commit, describe_hardware
from shortcut_policy.trained_networks import read_teacher, read_trained
from shortcut_policy.trained_objective import check_same_sigma
from shortcut_policy.training.distributed import Processes, join_processes
from shortcut_policy.training.loop import Hook, Trainer
from shortcut_policy.training.state import Progress
from shortcut_policy.validation import held_out_loss, validate

if TYPE_CHECKING:
    from gymnasium import Env

    from shortcut_policy.episode_results import EpisodeResult, Evaluation
    from shortcut_policy.evaluation import Environments

SLOTS = 50
"""Rows of the padded batch in which episodes are evaluated; part of what makes a score reproducible."""


@dataclass(frozen=True)
class Demonstrations:
    """Demonstrations in RAM; their images may lie in the file.

    Attributes:
        training, held_out: the episodes, actions encoded; `held_out` is None where none are.
        env_args: what the data set says of its environment; None where it says nothing.
        stored_images: those that lie in the file; None where all are in RAM.
    """

    training: Episodes
    held_out: Episodes | None
    env_args: EnvArgs | None
    stored_images: StoredImages | None = None


def read_demonstrations(config: DataConfig) -> Demonstrations:
    """Read the demonstrations into RAM, but for images that `config` leaves in the file.

    Raises:
        FileNotFoundError, ValueError: they are missing or damaged, or their actions are of another representation.
    """
    env_args = read_env_args(config.path) if config.format == "robomimic" else None
    images = None if config.image_workers is None else _find_images(config)
    if images is not None:
        if config.symmetries:
            raise ValueError("data.symmetries cannot map images: leave it empty, or the observations that are images")
        numbers = {key: source for key, source in config.observations.items() if key not in images.arrays}
        config = replace(config, observations=numbers)
    episodes = _read_episodes(config, config.filter_key)
    check_codec(env_args, config.action.array, config.action_codec.representation, episodes.actions, config.path)
    if config.valid_filter_key:
        training, held_out = episodes, _read_episodes(config, config.valid_filter_key)
    else:
        training, held_out = episodes.split(config.valid_fraction, config.split_seed)
    training = with_symmetric_copies(training, config.symmetries).encoded(config.action_codec)
    held_out = None if held_out is None else held_out.encoded(config.action_codec)
    return Demonstrations(training, held_out, env_args, images)


def _find_images(config: DataConfig) -> StoredImages | None:
    keys = {config.filter_key, config.valid_filter_key or config.filter_key}
    parts = [find_images(config.path, config.observations, filter_key=key) for key in keys]
    if not parts[0].arrays:
        return None
    return replace(parts[0], lengths={demo: steps for part in parts for demo, steps in part.lengths.items()})


def _read_episodes(config: DataConfig, filter_key: str | None) -> Episodes:
    if config.format == "zarr":
        return read_zarr(config.path, config.observations, config.action)
    return read_robomimic(config.path, config.observations, config.action, filter_key=filter_key)


@contextmanager
def open_rollouts(
    environment: EnvironmentConfig, episodes: int, num_envs: int = SLOTS, *, filmed: bool = False
) -> Iterator[Environments]:
    """Open a task's environments for evaluations by `roll_out`.

    Args:
        environment: of the task.
        episodes: of an evaluation: no more environments are needed.
        num_envs: environments at a time; the scores do not depend on it.
        filmed: whether their episodes can be recorded, which needs GL.

    Raises:
        ValueError: the environment is unknown, or the recorded one is another.
        ImportError: its simulator is missing, or GL where episodes are to be recorded.
    """
    from shortcut_policy.evaluation import open_environments

    factory = make_environment(environment, **({"render_mode": "rgb_array"} if filmed else {}))
    with open_environments(factory, min(num_envs, episodes, SLOTS), environment.workers) as environments:
        yield environments


def roll_out(
    environments: Environments,
    policy: Policy,
    *,
    num_steps: int,
    episodes: int,
    first_seed: int,
    only: Sequence[int] | None = None,
    record: Sequence[int] = (),
    progress: Callable[[EpisodeResult], None] | None = None,
    queue: ActionQueue | None = None,
) -> Evaluation:
    """Evaluate a policy with `num_steps` network evaluations per chunk.

    `queue` is `PolicyAgent`'s, the other arguments are `evaluate_in`'s.
    """
    from shortcut_policy.evaluation import evaluate_in

    return evaluate_in(
        environments,
        PolicyAgent(policy, SLOTS, num_steps, queue),
        episodes=episodes,
        slots=SLOTS,
        first_seed=first_seed,
        only=only,
        record=record,
        progress=progress,
        action_representation=policy.config.action_codec.representation,
    )


def make_environment(environment: EnvironmentConfig, **options: object) -> Callable[[], Env]:
    """A factory of the environment, also for other processes, with `options` in place of its own.

    Raises:
        ValueError: the environment is unknown, or the recorded one is another.
    """
    # here: a machine that only trains needs no gymnasium
    import envs

    options = {**environment.options, **options}
    envs.check(environment.name, **options)
    return functools.partial(envs.make, environment.name, **options)


def recorded_environment(environment: EnvironmentConfig, data: Demonstrations) -> EnvironmentConfig:
    """The environment as the data were recorded in it: with their `env_args`, and taking their actions."""
    codec = data.training.action_codec
    if data.env_args is None or data.env_args.type != ROBOSUITE:
        return environment
    options = {
        "env_args": {key: value for key, value in to_mapping(data.env_args).items() if value is not None},
        "actions": codec.representation,
    }
    return replace(environment, options={**options, **environment.options})


def train(config: ExperimentConfig) -> Progress:
    """Train the policy of `config`, or go on where its run was interrupted.

    Raises:
        FileNotFoundError, ValueError: data or values that do not fit.
        FileExistsError: the output folder holds something else.
        ImportError: rollouts are asked for, and their simulator is missing, or the GL of their cameras.
        TrainingInterrupted, TrainingDiverged: see `Trainer.run`.
    """
    data = read_demonstrations(config.data)
    if config.environment is not None:
        config = replace(config, environment=recorded_environment(config.environment, data))
        _check_environment(config.environment, built_here=config.rollout.every > 0)
    with join_processes(config.device) as processes:
        return _make_trainer(config, data, processes).run()


def _check_environment(environment: EnvironmentConfig, *, built_here: bool) -> None:
    """Say before the training what does not fit; without rollouts, nothing is built here, and no GL needed."""
    if importlib.util.find_spec("gymnasium") is not None:
        import envs

        envs.check(environment.name, built_here=built_here, **environment.options)


def _make_trainer(config: ExperimentConfig, data: Demonstrations, processes: Processes) -> Trainer:
    stored = {} if data.stored_images is None else {"image_shapes": data.stored_images.shapes}
    policy = Policy.for_episodes(
        data.training,
        seed=config.trainer.seed,
        **vars(config.policy),
        **stored,
        vision=config.vision,
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
                "symmetries": [symmetry.name for symmetry in config.data.symmetries],
            },
        },
    ).to(processes.device)
    if config.init_from is not None:
        begun = read_trained(config.init_from, policy, "init_from")
        check_same_sigma(begun.config.objective, policy.config.objective, "init_from", config.init_from)
        policy.network.load_state_dict(begun.network.state_dict())
    if policy.config.vision is not None and policy.config.vision.cache_features:
        data = _with_features(policy, data, config.trainer.progress and processes.is_main)
    windows = _windows(config, data, data.training, processes.device, config.data.image_workers or 0)
    hooks = []
    if data.held_out is not None:
        valid = _windows(config, data, data.held_out, processes.device)
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
        make_environment(config.environment)().close()
        hooks.append(Hook(config.rollout.every, lambda step, network: _rollout_scores(config, policy, network)))
    return Trainer(
        policy.network,
        policy.objective,
        PolicyBatches(policy, windows, config.trainer.seed),
        config.trainer,
        output=config.folder,
        save_model=lambda folder, network: policy.with_network(network).save_pretrained(folder),
        hooks=hooks,
        teacher=None if config.teacher is None else read_teacher(config.teacher, policy),
        processes=processes,
        run_config=to_mapping(config),
    )


def _with_features(policy: Policy, data: Demonstrations, progress: bool) -> Demonstrations:
    if data.stored_images is not None:
        raise ValueError("vision.cache_features=true needs the images in RAM: say data.image_workers=null")
    held_out = None if data.held_out is None else with_features(policy, data.held_out)
    return replace(data, training=with_features(policy, data.training, progress=progress), held_out=held_out)


def _windows(
    config: ExperimentConfig, data: Demonstrations, episodes: Episodes, device: torch.device, workers: int = 0
) -> WindowSource:
    windows = make_windows(
        episodes.episode_ends,
        observation_steps=config.policy.observation_steps,
        horizon=config.policy.horizon,
        action_offset=config.policy.action_offset,
        pad_after=config.data.pad_after,
    )
    trainer = config.trainer
    if data.stored_images is None:
        return WindowBatches(episodes, windows, trainer.batch_size, trainer.seed, device)
    return StreamedWindows(
        episodes, data.stored_images, windows, trainer.batch_size, trainer.seed, device, workers=workers
    )


def _rollout_scores(config: ExperimentConfig, policy: Policy, network: nn.Module) -> Mapping[str, float]:
    assert config.environment is not None
    scores, rollout = {}, config.rollout
    with open_rollouts(config.environment, rollout.episodes) as environments:
        for steps in rollout.num_steps:
            evaluation = roll_out(
                environments,
                policy.with_network(network),
                num_steps=steps,
                episodes=rollout.episodes,
                first_seed=rollout.first_seed,
            )
            scores[f"rollout/score_{steps}_steps"] = evaluation.mean_score
            scores[f"rollout/success_{steps}_steps"] = evaluation.success_rate
    return scores
