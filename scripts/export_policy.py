"""Export a checkpoint: `python scripts/export_policy.py checkpoint=DIR format=onnx num_steps=1 output=policy.onnx`.

The file is compared with torch before it gets its name; then both latencies are printed.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from hydra_command import command

from shortcut_policy.config import from_mapping
from shortcut_policy.policy import Policy
from shortcut_policy.pretrained import find_checkpoint
from shortcut_policy.realtime.chunk_module import ChunkFunction, ChunkModule
from shortcut_policy.realtime.export import Exported
from shortcut_policy.realtime.export_aoti import export_aoti, load_aoti
from shortcut_policy.realtime.export_onnx import export_onnx, load_onnx
from shortcut_policy.training.distributed import join_processes

WARM_UP = 10


@dataclass(frozen=True)
class ExportConfig:
    """The values of `configs/export_policy.yaml`."""

    checkpoint: str
    format: Literal["onnx", "aoti"]
    num_steps: int
    batch_size: int | None
    output: str | None
    overwrite: bool
    tolerance: float
    noise_scale: float | None
    latency_calls: int
    device: str

    def __post_init__(self) -> None:
        for name in ("num_steps", "latency_calls"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {self.tolerance}")
        if self.format == "aoti" and self.batch_size is None:
            raise ValueError("batch_size=null is for format=onnx: a package of aoti is compiled for one number of rows")

    @property
    def path(self) -> Path:
        """Where the file shall stand."""
        return Path(self.output or {"onnx": "policy.onnx", "aoti": "policy.pt2"}[self.format])


def eager(policy: Policy, num_steps: int) -> ChunkFunction:
    """The policy itself, from arrays to an array."""

    def sample(observation: Mapping[str, np.ndarray], noise: np.ndarray) -> np.ndarray:
        draws = torch.from_numpy(noise)
        return policy.sample(observation, num_steps, noise=draws[0], step_noise=draws[1:]).cpu().numpy()

    return sample


def latency_ms(
    functions: Mapping[str, ChunkFunction], module: ChunkModule, batch: int, calls: int
) -> dict[str, np.ndarray]:
    """Milliseconds from arrays to an array, (calls,) each: in turns, every round with another observation and noise."""
    times = {name: np.empty(WARM_UP + calls) for name in functions}
    for call in range(WARM_UP + calls):
        *observations, noise = (tensor.cpu().numpy() for tensor in module.example(batch, seed=call))
        observation = dict(zip(module.keys, observations, strict=True))
        for name, function in functions.items():
            started = time.perf_counter()
            function(observation, noise)
            times[name][call] = time.perf_counter() - started
    return {name: 1e3 * values[WARM_UP:] for name, values in times.items()}


def report(exported: Exported, latencies: Mapping[str, np.ndarray]) -> str:
    """The table, and what else is to be said of the file."""
    lines = ["| | latency p50 | p99 |", "|:---|---:|---:|"]
    for name, values in latencies.items():
        lines.append(f"| {name} | {np.median(values):.2f} ms | {np.percentile(values, 99):.2f} ms |")
    return "\n".join(
        [
            *lines,
            "",
            f"largest difference from torch: {exported.difference:.1e} of the actions' range",
            f"{exported.path}: {exported.bytes / 2**20:.1f} MiB",
        ]
    )


@command("export_policy")
def main(values: dict[str, Any]) -> None:
    """Export the checkpoint, and measure."""
    config = from_mapping(ExportConfig, values)
    checkpoint = find_checkpoint(config.checkpoint)
    with join_processes(config.device) as processes:
        policy = Policy.from_pretrained(checkpoint, processes.device, noise_scale=config.noise_scale)
    sha256 = json.loads((checkpoint / "config.json").read_text())["sha256"]
    formats: dict[str, tuple[Callable[..., Exported], Callable[[Path], ChunkFunction]]] = {
        "onnx": (export_onnx, load_onnx),
        "aoti": (export_aoti, load_aoti),
    }
    export, load = formats[config.format]
    exported = export(
        policy,
        config.path,
        config.num_steps,
        config.batch_size,
        tolerance=config.tolerance,
        overwrite=config.overwrite,
        checkpoint_sha256=sha256,
    )
    batch = config.batch_size or 1
    functions = {"torch, eager": eager(policy, config.num_steps), config.format: load(exported.path)}
    print(report(exported, latency_ms(functions, ChunkModule(policy, config.num_steps), batch, config.latency_calls)))
    robots = "one robot" if batch == 1 else f"{batch} robots"
    print(f"latency of {robots}, {config.num_steps} steps, with {torch.get_num_threads()} threads")


if __name__ == "__main__":
    main()
