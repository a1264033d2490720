"""Evaluate checkpoints by rollouts: `python scripts/eval_policy.py checkpoint=DIR steps=[1,2,4,8] episodes=50`.

Writes result.json, a plot and videos, and prints the table.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra_command import command
from omegaconf import OmegaConf
from tqdm import tqdm

from shortcut_policy.config import Component, from_mapping, to_mapping
from shortcut_policy.experiment import open_rollouts, roll_out
from shortcut_policy.experiment_config import EnvironmentConfig
from shortcut_policy.objective_cost import evaluations_per_row
from shortcut_policy.plots import score_and_latency
from shortcut_policy.policy import Policy
from shortcut_policy.pretrained import find_checkpoint
from shortcut_policy.provenance import current_command, current_commit, describe_hardware, installed_versions
from shortcut_policy.realtime.latency import sampling_latency_ms
from shortcut_policy.result_tables import markdown_table
from shortcut_policy.results import (
    EvaluationSettings,
    Result,
    Training,
    make_row,
    mean_figures,
    result_paths,
    write_result,
)
from shortcut_policy.statistics import paired_difference_interval
from shortcut_policy.training.distributed import join_processes
from shortcut_policy.video import write_mp4

CONFIGS = Path(__file__).parents[1] / "configs"
OUTWARD = ("progress", "logger", "log_every", "checkpoint_every", "keep_checkpoints")
"""Values of a trainer that change no weight."""


@dataclass(frozen=True)
class EvalConfig:
    """The values of `configs/eval_policy.yaml`."""

    checkpoint: tuple[str, ...]
    steps: tuple[int, ...]
    episodes: int
    first_seed: int
    num_envs: int
    workers: int | None
    videos: int
    video_seeds: tuple[int, ...] | None
    noise_scale: float | None
    latency_calls: int
    output: str | None
    result: str | None
    overwrite: bool
    device: str

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1:
            raise ValueError(f"steps must be positive, got {list(self.steps)}")
        for name in ("episodes", "num_envs", "latency_calls"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

        last = self.first_seed + self.episodes - 1
        for seed in self.video_seeds or ():
            if not self.first_seed <= seed <= last:
                raise ValueError(f"video_seeds: {seed} is not evaluated: choose from {self.first_seed} to {last}")

    @property
    def record(self) -> tuple[int, ...]:
        """Seeds of the episodes that become videos."""
        if self.video_seeds is not None:
            return self.video_seeds
        return tuple(range(self.first_seed, self.first_seed + min(self.videos, self.episodes)))


def preset_name(group: str, component: Component) -> str:
    """The name of the YAML file in `configs/{group}` that describes the component, or its values in words."""
    for path in sorted((CONFIGS / group).glob("*.yaml")):
        if OmegaConf.to_container(OmegaConf.load(path)) == {"name": component.name, **component.options}:
            return path.stem
    return " ".join([component.name, *(f"{k}={v}" for k, v in component.options.items())])


def last_held_out(checkpoint: Path, step: int) -> dict[str, float]:
    """The last held-out figures in the log of a checkpoint's run, up to the checkpoint's step; empty without a log."""
    log, figures = checkpoint.parents[1] / "metrics.jsonl", {}
    for text in log.read_text().splitlines() if log.exists() else ():
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            break  # the line that a crash cut short, or that a training is writing
        found = {name.removeprefix("valid/"): value for name, value in line.items() if name.startswith("valid/")}
        if found and line["step"] <= step:
            figures = found
    return figures


def describe_training(checkpoints: list[Path], policies: list[Policy]) -> Training:
    """What the checkpoints say of their training; all must have been trained alike, each with a seed of its own."""
    records = [dict(policy.config.metadata["training"]) for policy in policies]
    trainers = [dict(record["trainer"]) for record in records]
    seeds = tuple(trainer.pop("seed") for trainer in trainers)
    for policy, trainer, record in zip(policies, trainers, records, strict=True):
        differing = [name for name in trainer if trainer[name] != trainers[0][name] and name not in OUTWARD]
        if replace(policy.config, metadata=policies[0].config.metadata) != policies[0].config:
            differing.append("the policy's configuration")
        if _symmetries(record) != _symmetries(records[0]):
            differing.append("data.symmetries")
        if differing:
            raise ValueError(
                f"the checkpoints {', '.join(map(str, checkpoints))} were not trained alike: {differing[0]} differs"
            )
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"every checkpoint must have a training seed of its own, got {list(seeds)}")
    progress = [json.loads((path / "training_state" / "progress.json").read_text()) for path in checkpoints]
    return Training(
        steps=progress[0]["step"],
        seconds=round(sum(p["seconds"] for p in progress) / len(progress), 1),
        seeds=seeds,
        parameters=sum(p.numel() for p in policies[0].network.parameters()),
        command=records[0]["command"],
        commit=records[0]["commit"],
        hardware=records[0]["hardware"],
        options={"trainer": trainers[0], **_symmetries(records[0]), **_training_options(policies[0])},
        evaluations_per_row=round(
            evaluations_per_row(policies[0].objective, trainers[0]["steps"], trainers[0]["batch_size"]), 3
        ),
        held_out=mean_figures([last_held_out(path, p["step"]) for path, p in zip(checkpoints, progress, strict=True)]),
    )


def _symmetries(record: Mapping[str, Any]) -> dict[str, str]:
    names = record.get("symmetries")  # of a training before there were any: None
    return {"symmetries": ", ".join(names)} if names else {}


def _training_options(policy: Policy) -> dict[str, Any]:
    """What the policy is made of, without what is of its sampling alone."""
    values: dict[str, Any] = to_mapping(replace(policy.config, metadata={}))
    values.pop("noise_scale")
    return values


def load_policies(
    checkpoints: Sequence[Path], device: torch.device, noise_scale: float | None, instead: str
) -> list[Policy]:
    """The policies of checkpoints that say in which environment they are to be evaluated.

    Args:
        checkpoints: their folders.
        device, noise_scale: as `Policy.from_pretrained` takes them.
        instead: what evaluates a policy in an environment that its checkpoint does not name.

    Raises:
        ValueError: a checkpoint cannot be loaded, or names no environment.
    """
    policies = [Policy.from_pretrained(path, device, noise_scale=noise_scale) for path in checkpoints]
    for path, policy in zip(checkpoints, policies, strict=True):
        metadata = policy.config.metadata
        if not metadata.keys() >= {"task", "environment", "training"} or metadata["environment"] is None:
            raise ValueError(f"{path} names no environment: evaluate it in yours with {instead}")
    return policies


def environment_values(metadata: Mapping[str, Any], workers: int | None) -> dict[str, Any]:
    """The environment's values in a checkpoint, with the number of workers in place of the recorded one if given."""
    recorded = dict(metadata["environment"])
    recorded["workers"] = int(recorded["workers"]) if workers is None else workers  # it was a bool once
    return recorded


def checkpoint_label(path: Path) -> str:
    """How the checkpoint was chosen: "last", or the name of its folder for one that was picked."""
    return "last" if path == (path.parent / "last").resolve() else path.name


def film(policy: Policy, environment: EnvironmentConfig, config: EvalConfig, folder: Path) -> None:
    """Roll out the episodes of the videos by themselves, in environments that can draw: the scores need no GL.

    They take the place of those of an earlier evaluation.
    """
    for old in folder.glob("seed*_*steps_score*.mp4"):
        old.unlink()
    seeds = config.record
    if not seeds:
        return
    with open_rollouts(environment, len(seeds), filmed=True) as environments:
        for steps in tqdm(config.steps, desc="filming", unit="step count"):
            evaluation = roll_out(
                environments,
                policy,
                num_steps=steps,
                episodes=config.episodes,
                first_seed=config.first_seed,
                only=seeds,
                record=seeds,
            )
            for episode in evaluation.episodes:
                assert episode.frames is not None
                file = folder / f"seed{episode.seed}_{steps}steps_score{episode.max_reward:.2f}.mp4"
                write_mp4(file, episode.frames, evaluation.render_fps or 10)


@command("eval_policy")
def main(values: dict[str, Any]) -> None:
    """Roll out every checkpoint with every number of steps."""
    if isinstance(values["checkpoint"], str):
        values["checkpoint"] = [values["checkpoint"]]
    config = from_mapping(EvalConfig, values)
    checkpoints = [find_checkpoint(path) for path in config.checkpoint]
    with join_processes(config.device) as processes:
        policies = load_policies(
            checkpoints, processes.device, config.noise_scale, "shortcut_policy.evaluation.evaluate"
        )
    output = Path(config.output) if config.output else checkpoints[0].parents[1] / "evaluation"
    targets = result_paths(output, config.result, config.overwrite)
    metadata = policies[0].config.metadata
    training = describe_training(checkpoints, policies)
    if config.noise_scale is not None:
        training = replace(training, held_out={})  # the log's, which was sampled from other noise
    environment = from_mapping(EnvironmentConfig, environment_values(metadata, config.workers), "environment.")

    # first of all: the demo evaluates two policies at once, which begin together and go apart later
    latency_ms = sampling_latency_ms(policies[0], config.steps, config.latency_calls)
    film(policies[0], environment, config, output / "videos")
    rows, scores = [], {}
    with (
        open_rollouts(environment, config.episodes, config.num_envs) as environments,
        tqdm(total=len(config.steps) * len(policies) * config.episodes, desc="episodes", unit="episode") as bar,
    ):
        for steps in config.steps:
            evaluations = [
                roll_out(
                    environments,
                    policy,
                    num_steps=steps,
                    episodes=config.episodes,
                    first_seed=config.first_seed,
                    progress=lambda episode: bar.update(),
                )
                for policy in policies
            ]
            scores[steps] = [evaluation.scores for evaluation in evaluations]
            nfe = policies[0].objective.sampler(steps).evaluations
            rows.append(make_row(steps, nfe, evaluations, latency_ms[steps]))

    hashes = [json.loads((path / "config.json").read_text())["sha256"][:16] for path in checkpoints]
    policy_config = policies[0].config
    objective = policy_config.objective.name
    result = Result(
        name=Path(config.result).stem if config.result else f"{metadata['task']}_{objective}",
        task=metadata["task"],
        objective=objective,
        network=preset_name("network", policy_config.network),
        command=current_command(),
        commit=current_commit(),
        hardware=describe_hardware(torch.device(processes.device)),
        versions=installed_versions(),
        training=training,
        evaluation=EvaluationSettings(
            config.episodes,
            config.first_seed,
            "max reward",
            f"{' '.join(sorted({checkpoint_label(path) for path in checkpoints}))}, sha256 {' '.join(hashes)}",
            policy_config.noise_scale,
        ),
        rows=tuple(rows),
    )
    for target in targets:
        write_result(target, result)
    (output / "score_and_latency.png").write_bytes(score_and_latency(result))
    print(markdown_table(result))
    print_differences(scores)
    print(f"\n{output}: result.json, score_and_latency.png, videos/")


def print_differences(scores: Mapping[int, Sequence[np.ndarray]]) -> None:
    """The score of every number of steps less that of the largest, episode by episode: mean and 95 % interval."""
    most = max(scores)
    for steps in sorted(scores.keys() - {most}):
        interval = paired_difference_interval(scores[steps], scores[most])
        difference = np.mean(scores[steps]) - np.mean(scores[most])
        print(f"score({steps}) - score({most}) = {difference:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}]")


if __name__ == "__main__":
    main()
