"""What a latency costs: `python scripts/eval_latency.py checkpoint=DIR steps=[1,16,100] latency_ms=[0,100,200,500]`.

In simulation the world stands still while a policy computes. Here it does not: a chunk takes effect some ticks after
its observation, and meanwhile the old one is followed. Writes result.json and a plot, and prints the table.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from eval_policy import checkpoint_label, describe_training, environment_values, load_policies, preset_name
from hydra_command import command
from tqdm import tqdm

from shortcut_policy.config import from_mapping
from shortcut_policy.episode_results import Evaluation
from shortcut_policy.experiment import open_rollouts, roll_out
from shortcut_policy.experiment_config import EnvironmentConfig
from shortcut_policy.latency_results import LatencyResult, LatencyRow, latency_table, make_latency_row
from shortcut_policy.plots import score_against_latency
from shortcut_policy.policy import Policy
from shortcut_policy.pretrained import find_checkpoint
from shortcut_policy.provenance import current_command, current_commit, describe_hardware, installed_versions
from shortcut_policy.realtime.delayed_horizon import DelayedHorizon, ticks_of_latency
from shortcut_policy.realtime.latency import sampling_latency_ms
from shortcut_policy.results import EvaluationSettings, make_row, result_paths, write_result
from shortcut_policy.training.distributed import join_processes


@dataclass(frozen=True)
class EvalConfig:
    """The values of `configs/eval_latency.yaml`."""

    checkpoint: tuple[str, ...]
    steps: tuple[int, ...]
    latency_ms: tuple[float, ...]
    measured: bool
    rate_hz: float | None
    action_steps: int | None
    ensembling: float | None
    episodes: int
    first_seed: int
    num_envs: int
    workers: int | None
    noise_scale: float | None
    latency_calls: int
    output: str | None
    result: str | None
    overwrite: bool
    device: str

    def __post_init__(self) -> None:
        if not self.steps or min(self.steps) < 1:
            raise ValueError(f"steps must be positive, got {list(self.steps)}")
        if not self.latency_ms and not self.measured:
            raise ValueError("latency_ms=[] with measured=false evaluates nothing: give latencies")
        for latency in self.latency_ms:
            if not (math.isfinite(latency) and latency >= 0):
                raise ValueError(f"latency_ms must be 0 or more and finite, got {latency}")
        for name in ("episodes", "num_envs", "latency_calls", "rate_hz", "action_steps"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")


def latencies_of(config: EvalConfig, steps: int, measured_ms: np.ndarray) -> list[tuple[float, bool]]:
    """(latency in ms, whether it is the measured one) of every row for a number of steps."""
    own = [(float(np.median(measured_ms)), True)] if config.measured else []
    return [*((latency, False) for latency in sorted(set(config.latency_ms))), *own]


def roll_out_all(
    config: EvalConfig, policies: list[Policy], environment: EnvironmentConfig, latency_ms: Mapping[int, np.ndarray]
) -> tuple[list[LatencyRow], float]:
    """A row for every number of steps and latency, and the environment's rate in Hz.

    Latencies that come to the same number of ticks are rolled out once.
    """
    rows = []
    with open_rollouts(environment, config.episodes, config.num_envs) as environments:
        rate_hz = config.rate_hz or environments.spec.render_fps
        if rate_hz is None:
            raise ValueError(f"the environment {environment.name} does not say how fast it is: give rate_hz=")
        wanted = {n: latencies_of(config, n, latency_ms[n]) for n in sorted(set(config.steps))}
        runs = {(n, ticks_of_latency(latency, rate_hz)) for n, rest in wanted.items() for latency, _ in rest}
        done: dict[tuple[int, int], list[Evaluation]] = {}
        with tqdm(total=len(runs) * len(policies) * config.episodes, desc="episodes", unit="episode") as bar:
            for steps, ticks in sorted(runs):
                done[steps, ticks] = [
                    roll_out(
                        environments,
                        policy,
                        num_steps=steps,
                        episodes=config.episodes,
                        first_seed=config.first_seed,
                        progress=lambda episode: bar.update(),
                        queue=DelayedHorizon(
                            policy.config.observation_steps,
                            config.action_steps or policy.config.action_steps,
                            ticks,
                            ensembling=config.ensembling,
                            codec=policy.config.action_codec,
                            prefix_steps=policy.config.prefix_steps,
                        ),
                    )
                    for policy in policies
                ]
    for steps, latencies in wanted.items():
        nfe = policies[0].objective.sampler(steps).evaluations
        for latency, measured in latencies:
            ticks = ticks_of_latency(latency, rate_hz)
            row = make_row(steps, nfe, done[steps, ticks], latency_ms[steps])
            rows.append(make_latency_row(row, latency, ticks, measured))
    return rows, rate_hz


@command("eval_latency")
def main(values: dict[str, Any]) -> None:
    """Roll out every checkpoint with every number of steps and every latency."""
    if isinstance(values["checkpoint"], str):
        values["checkpoint"] = [values["checkpoint"]]
    config = from_mapping(EvalConfig, values)
    checkpoints = [find_checkpoint(path) for path in config.checkpoint]
    with join_processes(config.device) as processes:
        policies = load_policies(checkpoints, processes.device, config.noise_scale, "DelayedHorizon in a PolicyAgent")
    output = Path(config.output) if config.output else checkpoints[0].parents[1] / "latency"
    targets = result_paths(output, config.result, config.overwrite)
    policy_config, metadata = policies[0].config, policies[0].config.metadata
    action_steps = config.action_steps or policy_config.action_steps
    reach = policy_config.horizon + policy_config.action_offset
    if action_steps > reach:
        raise ValueError(f"action_steps={action_steps} cannot be executed: the policy's chunks hold {reach} actions")
    training = describe_training(checkpoints, policies)
    environment = from_mapping(EnvironmentConfig, environment_values(metadata, config.workers), "environment.")

    latency_ms = sampling_latency_ms(policies[0], config.steps, config.latency_calls)
    rows, rate_hz = roll_out_all(config, policies, environment, latency_ms)

    hashes = [json.loads((path / "config.json").read_text())["sha256"][:16] for path in checkpoints]
    result = LatencyResult(
        name=f"{metadata['task']}_latency",
        task=metadata["task"],
        objective=policy_config.objective.name,
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
        rate_hz=rate_hz,
        action_steps=action_steps,
        ensembling=config.ensembling,
    )
    for target in targets:
        write_result(target, result)
    (output / "score_against_latency.png").write_bytes(score_against_latency(result))
    print(latency_table(result))
    print(f"\n{output}: result.json, score_against_latency.png")


if __name__ == "__main__":
    main()
