"""Results: a claim is a file that the script which measured it wrote; tables are generated from it."""

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from shortcut_policy.config import from_mapping, to_mapping

PACKAGES = ("torch", "numpy", "gymnasium", "gym-pusht", "pymunk", "mujoco", "robosuite")


@dataclass(frozen=True)
class Training:
    """How the evaluated networks were trained: values of one run; all seeds alike."""

    steps: int
    seconds: float
    seeds: tuple[int, ...]
    parameters: int
    command: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class EvaluationSettings:
    """How they were evaluated."""

    episodes: int
    first_seed: int
    metric: str
    checkpoint: str


@dataclass(frozen=True)
class Row:
    """The figures for one number of steps.

    Attributes:
        steps, nfe: sampling steps, and network evaluations for one chunk.
        mean, low, high: score and its 95 % interval.
        success, success_low, success_high: success rate and its 95 % interval (Wilson, over all episodes).
        per_seed: mean score of every training seed.
        latency_ms_p50, latency_ms_p99: observation in to chunk out, one robot.
    """

    steps: int
    nfe: int
    mean: float
    low: float
    high: float
    success: float
    success_low: float
    success_high: float
    per_seed: tuple[float, ...]
    latency_ms_p50: float
    latency_ms_p99: float


@dataclass(frozen=True)
class Result:
    """One file of `results/`."""

    name: str
    task: str
    objective: str
    network: str
    command: str
    commit: str
    hardware: str
    versions: Mapping[str, str]
    training: Training
    evaluation: EvaluationSettings
    rows: tuple[Row, ...]


def write_result(path: Path, result: Result) -> None:
    """Write the JSON file under a temporary name and rename it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(to_mapping(result), indent=1) + "\n")
    temporary.rename(path)


def read_result(path: Path) -> Result:
    """Read a file of `results/`.

    Raises:
        ValueError: it is no JSON or does not follow the schema.
    """
    try:
        values = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path.name} is damaged ({error}): restore it or measure again") from error
    return from_mapping(Result, values, f"{path.name}: ")


def markdown_table(result: Result) -> str:
    """The table of the README."""
    lines = [
        f"| steps | score ({result.evaluation.metric}) | success rate | latency p50 | p99 |",
        "|---:|---:|---:|---:|---:|",
    ]
    lines += [
        f"| {row.steps} | **{row.mean:.3f}** [{row.low:.3f}, {row.high:.3f}] "
        f"| {row.success:.2f} [{row.success_low:.2f}, {row.success_high:.2f}] "
        f"| {row.latency_ms_p50:.1f} ms | {row.latency_ms_p99:.1f} ms |"
        for row in result.rows
    ]
    training, evaluation = result.training, result.evaluation
    lines += [
        "",
        f"`{result.network}` ({training.parameters / 1e6:.1f} M parameters), {training.steps:,} updates in "
        f"{training.seconds / 60:.0f} min on {result.hardware}; training seeds {_join(training.seeds)}, "
        f"{evaluation.episodes} episodes each from seed {evaluation.first_seed}, last checkpoint, 95 % intervals.",
    ]
    return "\n".join(lines)


def describe_hardware(device: torch.device) -> str:
    """The device that computes, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return f"{len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()} CPU cores ({model})"


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages that figures depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def current_commit() -> str:
    """The commit of the checkout that holds this file, with "-dirty" for tracked changes; "unknown" outside git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        changes = subprocess.run([*git, "diff", "--quiet", "HEAD"], capture_output=True, check=False).returncode
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("-dirty" if changes else "")


def _join(values: Sequence[int]) -> str:
    return ", ".join(map(str, values))
