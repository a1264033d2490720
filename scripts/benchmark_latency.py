"""How long a policy takes from an observation to a chunk: `python scripts/benchmark_latency.py checkpoint=DIR`.

One robot, host memory to host memory, for 1 to 16 steps of the shortcut sampler and for Diffusion Policy's DDIM and
DDPM on the same network in the same run; compiled, captured and in half precision for one step. All take turns of ten
calls, so that a noisy machine is noisy for all. Beside the figures stand the parts of one step, and the floor: the
larger of the time to read the weights once and the time to start as many empty kernels.
"""

import json
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmark_policy import BenchmarkPolicy, draw_observations
from hydra_command import command
from timing import time_in_turns

from shortcut_policy.config import Component, from_mapping, to_mapping
from shortcut_policy.policy import Policy
from shortcut_policy.provenance import current_command, current_commit, describe_hardware, installed_versions
from shortcut_policy.realtime.compiled_policy import CompiledPolicy, Mode, Precision, action_difference
from shortcut_policy.realtime.latency import times_in_turns
from shortcut_policy.realtime.latency_floor import count_kernels, empty_kernel_ms, read_ms, weight_bytes
from shortcut_policy.speed_results import SpeedFloor, SpeedResult, SpeedRow, speed_table
from shortcut_policy.training.distributed import join_processes

FEWEST_CALLS = 50
IN_A_ROW = 10
"""Calls of one turn: a control loop asks one policy again and again, not one after the other."""


@dataclass(frozen=True)
class LatencyBenchmark:
    """The values of `configs/benchmark_latency.yaml` that say what is measured."""

    steps: tuple[int, ...]
    ddim_steps: int
    ddpm_steps: int
    modes: tuple[Mode, ...]
    precisions: tuple[Precision, ...]
    rounds: int

    def __post_init__(self) -> None:
        for name in ("steps", "modes", "precisions"):
            if not getattr(self, name):
                raise ValueError(f"{name}=[] leaves nothing to measure: name at least one")
        if min(self.steps) < 1:
            raise ValueError(f"steps must be positive, got {list(self.steps)}")
        for name in ("ddim_steps", "ddpm_steps"):
            if not 1 <= getattr(self, name) <= 100:
                raise ValueError(f"{name} must lie in [1, 100], got {getattr(self, name)}")
        if self.rounds < FEWEST_CALLS:
            raise ValueError(f"rounds={self.rounds} say little of a 99 % quantile: give at least {FEWEST_CALLS}")


@dataclass(frozen=True)
class Case:
    """One row of the table: a policy, made ready, and how to name it."""

    sampler: str
    policy: Policy
    compiled: CompiledPolicy

    @property
    def name(self) -> str:
        """Unique among the cases."""
        made = self.compiled
        return f"{self.sampler}-{made.num_steps} {made.mode} {made.precision}"


def with_sampler(policy: Policy, objective: Component) -> Policy:
    """The same network under another objective's sampler: what it costs depends on no weights."""
    other = Policy(replace(policy.config, objective=objective), policy.normalizer).to(policy.device).eval()
    return other.with_network(policy.network)


def make_cases(config: LatencyBenchmark, policy: Policy) -> list[Case]:
    """All that is timed; what is compiled is compiled here."""
    finest = 2 ** (max(config.steps) - 1).bit_length()
    shortcut = with_sampler(policy, Component("shortcut", {"base_steps": max(128, finest)}))
    cases = [Case("shortcut", shortcut, shortcut.compile(num_steps=steps)) for steps in config.steps]
    for sampling, steps in (("ddim", config.ddim_steps), ("ddpm", config.ddpm_steps)):
        diffusion = with_sampler(policy, Component("diffusion", {"sampling": sampling}))
        cases.append(Case(sampling, diffusion, diffusion.compile(num_steps=steps)))
    for mode in config.modes:
        for precision in config.precisions:
            if (mode, precision) != ("eager", "fp32"):
                print(f"making one step ready: {mode}, {precision}", flush=True)
                cases.append(Case("shortcut", shortcut, shortcut.compile(mode=mode, precision=precision)))
    return cases


def measure_rows(cases: list[Case], rounds: int) -> tuple[SpeedRow, ...]:
    """Time all cases in turns, and compare what they answer."""
    observations = draw_observations(cases[0].policy, 16)
    one = {key: values[:1].numpy() for key, values in observations.items()}
    calls = {case.name: partial(case.compiled, one) for case in cases}
    every = {case.name: max(1, min(case.compiled.num_steps, rounds // FEWEST_CALLS)) for case in cases}
    times = times_in_turns(calls, rounds, every, in_a_row=IN_A_ROW)
    rows = []
    for case in cases:
        made, values = case.compiled, times[case.name]
        p50, p99, longest = (round(float(value), 4) for value in np.quantile(values, [0.5, 0.99, 1.0]))
        rows.append(
            SpeedRow(
                sampler=case.sampler,
                steps=made.num_steps,
                mode=made.mode,
                precision=made.precision,
                batch=made.batch_size,
                calls=len(values),
                latency_ms_p50=p50,
                latency_ms_p99=p99,
                latency_ms_max=longest,
                action_difference=float(f"{action_difference(case.policy, made, observations):.3g}"),
            )
        )
    return tuple(rows)


@torch.no_grad()
def measure_parts(policy: Policy, repeats: int) -> dict[str, float]:
    """Median milliseconds of the parts of one eager step."""
    device, one = policy.device, {key: values[:1] for key, values in draw_observations(policy, 1).items()}
    there = policy.observation_tensors(one)
    seen = policy.condition(there)
    encoded = policy.network.encode(seen)
    noise, zero = torch.randn(1, *policy.chunk_shape, device=device), torch.zeros(1, device=device)
    chunk = policy.network(noise, zero, zero, encoded)
    decode = policy.config.action_codec.decode
    return time_in_turns(
        {
            "copy in": lambda: policy.observation_tensors(one),
            "normalise": lambda: policy.condition(there),
            "encode": lambda: policy.network.encode(seen),
            "head": lambda: policy.network(noise, zero, zero, encoded),
            "decode and copy out": lambda: decode(policy.normalizer.action.inverse(chunk)).cpu(),
        },
        repeats,
        device,
    )


def measure_floors(cases: list[Case]) -> dict[str, SpeedFloor]:
    """The floor of one step in every mode and precision; kernels of code compiled for a CPU cannot be counted."""
    floors, device = {}, cases[0].policy.device
    kernel_ms = empty_kernel_ms(device)
    for case in cases:
        made = case.compiled
        if case.sampler != "shortcut" or made.num_steps != 1:
            continue
        one = {key: values.numpy() for key, values in draw_observations(case.policy, 1).items()}
        countable = device.type == "cuda" or made.mode == "eager"
        size = weight_bytes(made.network)
        floors[f"{made.mode} {made.precision}"] = SpeedFloor(
            weight_bytes=size,
            read_ms=round(read_ms(size, device), 4),
            kernels=count_kernels(partial(made, one), device) if countable else 0,
            kernel_ms=round(kernel_ms, 6),
        )
    return floors


@command("benchmark_latency")
def main(values: dict[str, Any]) -> None:
    """Measure, print, write."""
    target = Path(values["result"]) if values["result"] else None
    if target and target.exists() and not values["overwrite"]:
        raise FileExistsError(f"{target} exists: choose another result=, or say overwrite=true")
    timed = BenchmarkPolicy.take(values)
    config = from_mapping(LatencyBenchmark, {field.name: values[field.name] for field in fields(LatencyBenchmark)})
    with join_processes(values["device"]) as processes:
        device = processes.device
        policy = timed.make(device)
        cases = make_cases(config, policy)
        result = SpeedResult(
            name=target.stem if target else "latency",
            network=timed.name(),
            parameters=sum(parameter.numel() for parameter in policy.network.parameters()),
            observations=policy.config.observation_shapes,
            command=current_command(),
            commit=current_commit(),
            hardware=describe_hardware(device),
            versions=installed_versions(),
            rows=measure_rows(cases, config.rounds),
            parts_ms={name: round(value, 4) for name, value in measure_parts(policy, min(200, config.rounds)).items()},
            floors=measure_floors(cases),
        )
    print(speed_table(result))
    if target:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(to_mapping(result), indent=1) + "\n")


if __name__ == "__main__":
    main()
