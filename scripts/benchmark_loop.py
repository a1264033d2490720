"""Whether a policy keeps up with a control loop: `python scripts/benchmark_loop.py 'rates_hz=[100,500]' seconds=60`.

The loop of `shortcut_policy.realtime` runs at each rate, with a robot that does nothing, and a compiled policy samples
beside it; the table tells how late the ticks were, how long chunks took, and how many were not there in time.
"""

import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from benchmark_policy import BenchmarkPolicy, draw_observations
from hydra_command import command

from shortcut_policy.config import from_mapping, to_mapping
from shortcut_policy.loop_results import LoopResult, LoopRow, loop_table
from shortcut_policy.policy import Policy
from shortcut_policy.provenance import current_command, current_commit, describe_hardware, installed_versions
from shortcut_policy.realtime.compiled_policy import Mode, Precision
from shortcut_policy.realtime.control_loop import ControlLoop, LoopConfig
from shortcut_policy.realtime.sampling import SampleChunk
from shortcut_policy.realtime.sampling_process import SamplingProcess
from shortcut_policy.training.distributed import join_processes


@dataclass(frozen=True)
class LoopBenchmark:
    """The values of `configs/benchmark_loop.yaml` that say what is measured."""

    rates_hz: tuple[float, ...]
    seconds: float
    num_steps: int
    mode: Mode
    precision: Precision
    sampler: Literal["thread", "process"]
    action_steps: int
    deadline_ticks: int

    def __post_init__(self) -> None:
        if not self.rates_hz or not all(math.isfinite(rate) and rate > 0 for rate in self.rates_hz):
            raise ValueError(f"rates_hz must be positive and finite, at least one, got {list(self.rates_hz)}")
        if not (math.isfinite(self.seconds) and self.seconds * min(self.rates_hz) >= 2):
            raise ValueError(f"seconds={self.seconds} at {min(self.rates_hz)} Hz are less than two actions: give more")
        if self.num_steps < 1:
            raise ValueError(f"num_steps must be positive, got {self.num_steps}")


class StillRobot:
    """Observes the same again and again, and does nothing.

    Args:
        observation: {key: (*shape)}.
    """

    def __init__(self, observation: dict[str, np.ndarray]) -> None:
        self._observation = observation

    def observe(self) -> dict[str, np.ndarray]:
        """See `Robot`."""
        return self._observation

    def act(self, action: np.ndarray) -> None:
        """See `Robot`."""


def make_sample(timed: BenchmarkPolicy, config: LoopBenchmark, device: str) -> SampleChunk:
    """What the loop asks; what is compiled is compiled at the first call at the latest."""
    policy = timed.make(torch.device(device))
    return policy.compile(num_steps=config.num_steps, mode=config.mode, precision=config.precision).sample_chunk


def loop_configs(config: LoopBenchmark, policy: Policy) -> list[LoopConfig]:
    """That of every rate."""
    steps = {"action_steps": config.action_steps, "deadline_ticks": config.deadline_ticks}
    return [LoopConfig.for_policy(policy.config, rate, **steps) for rate in config.rates_hz]


def run_all(
    configs: Sequence[LoopConfig], seconds: float, policy: Policy, sample: SampleChunk
) -> tuple[tuple[LoopRow, ...], bool]:
    """One run for every rate, and whether all came to their ends; one that was interrupted is left out."""
    robot = StillRobot({key: values[0, -1].numpy() for key, values in draw_observations(policy, 1).items()})
    rows: list[LoopRow] = []
    for config in configs:
        print(f"running at {config.rate_hz:g} Hz for {seconds:g} s", flush=True)
        report = ControlLoop(robot, sample, config).run(ticks=round(config.rate_hz * seconds))
        if report.ended == "interrupted":
            return tuple(rows), False
        rows.append(LoopRow(config.rate_hz, report))
    return tuple(rows), True


@command("benchmark_loop")
def main(values: dict[str, Any]) -> None:
    """Run, print, write."""
    target = Path(values["result"]) if values["result"] else None
    if target and target.exists() and not values["overwrite"]:
        raise FileExistsError(f"{target} exists: choose another result=, or say overwrite=true")
    timed = BenchmarkPolicy.take(values)
    config = from_mapping(LoopBenchmark, {field.name: values[field.name] for field in fields(LoopBenchmark)})
    with join_processes(values["device"]) as processes:
        policy = timed.make(processes.device)
        configs = loop_configs(config, policy)
        make = partial(make_sample, timed, config, str(processes.device))
        if config.sampler == "process":
            with SamplingProcess(make) as sample:
                rows, complete = run_all(configs, config.seconds, policy, sample)
        else:
            rows, complete = run_all(configs, config.seconds, policy, make())
        result = LoopResult(
            name=target.stem if target else "loop",
            network=timed.name(),
            parameters=sum(parameter.numel() for parameter in policy.network.parameters()),
            observations=policy.config.observation_shapes,
            evaluations=policy.objective.sampler(config.num_steps).evaluations,
            mode=config.mode,
            precision=config.precision,
            sampler=config.sampler,
            action_steps=config.action_steps,
            deadline_ticks=config.deadline_ticks,
            command=current_command(),
            commit=current_commit(),
            hardware=describe_hardware(processes.device),
            versions=installed_versions(),
            rows=rows,
        )
    print(loop_table(result))
    if not complete:
        sys.exit("interrupted: the other rates were not run, and nothing was written")
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(to_mapping(result), indent=1) + "\n")


if __name__ == "__main__":
    main()
