"""Train every objective on a mixture of Gaussians in the plane and see how few steps do: `... results=results`.

The same network, batches and updates for all. What was trained or measured before is not done again; an interrupted
training goes on.
"""

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from hydra_command import command
from objective_presets import make_objective
from safetensors.torch import load_file, save_file
from torch import nn

from shortcut_policy.config import from_mapping, to_mapping
from shortcut_policy.core.network import BoundNetwork
from shortcut_policy.core.objectives.base import Batch, Objective
from shortcut_policy.gaussian_mixture import GaussianRing, energy_distance
from shortcut_policy.mixture_results import MixtureResult, MixtureRow, mixture_table, read_mixture_result
from shortcut_policy.nn.vector_network import VectorNetwork
from shortcut_policy.objective_cost import evaluations_per_row
from shortcut_policy.plots import mixture_samples
from shortcut_policy.provenance import current_command, current_commit, describe_hardware, installed_versions
from shortcut_policy.training.config import TrainerConfig
from shortcut_policy.training.distributed import Processes, join_processes
from shortcut_policy.training.loop import Trainer
from shortcut_policy.training.run_folder import write_json
from shortcut_policy.training.seeding import derive_seed


@dataclass(frozen=True)
class NetworkConfig:
    """Of the `VectorNetwork`."""

    width: int
    blocks: int
    step_embedding_dim: int


@dataclass(frozen=True)
class MixtureConfig:
    """The values of `configs/compare_on_mixture.yaml`."""

    objectives: Mapping[str, Mapping[str, Any]]
    only: tuple[str, ...] | None
    steps: tuple[int, ...]
    seeds: tuple[int, ...]
    mixture: GaussianRing
    network: NetworkConfig
    trainer: TrainerConfig
    count: int
    shown: int
    folder: str
    results: str | None
    device: str

    def __post_init__(self) -> None:
        for name in ("objectives", "steps", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")
        if self.count < 2:
            raise ValueError(f"count must be at least 2, got {self.count}")
        if min(self.shown, *self.steps) < 1:
            raise ValueError(f"shown and steps must be positive, got {self.shown} and {list(self.steps)}")
        for name in self.only or ():
            if name not in self.objectives:
                raise ValueError(f"only={list(self.only or ())}: {name!r} is none of {', '.join(self.objectives)}")


def train(config: MixtureConfig, name: str, seed: int, folder: Path, processes: Processes) -> tuple[nn.Module, float]:
    """Train one network, or go on where it was interrupted, or read it if it is there: its EMA, and the seconds."""
    objective, options = make_objective(name, config.objectives[name])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VectorNetwork(2, **vars(config.network)).to(processes.device)
    done = folder / "finished.json"
    run = {"objective": name, "options": options, "mixture": to_mapping(config.mixture)}
    run |= {"network": to_mapping(config.network), "trainer": to_mapping(replace(config.trainer, seed=seed))}
    if done.exists():
        if json.loads((folder / "run.json").read_text()) != json.loads(json.dumps(run)):
            raise FileExistsError(f"{folder} holds another training: choose another folder=, or remove it")
        network.load_state_dict(load_file(folder / "checkpoints" / "last" / "model.safetensors"))
        return network, float(json.loads(done.read_text())["seconds"])

    def batch(step: int, rows: slice) -> Batch:
        generator = torch.Generator().manual_seed(derive_seed(seed, "mixture", step))
        return Batch(config.mixture.sample(config.trainer.batch_size, generator)[rows].to(processes.device))

    trainer = Trainer(
        network,
        objective,
        batch,
        replace(config.trainer, seed=seed),
        output=folder,
        save_model=lambda path, ema: save_file(ema.state_dict(), path / "model.safetensors"),
        processes=processes,
        run_config=run,
    )
    progress = trainer.run()
    return trainer.ema_network, progress.seconds


@torch.no_grad()
def sample(
    network: nn.Module, objective: Objective, steps: int, count: int, seed: int, device: torch.device
) -> torch.Tensor:
    """`count` samples (count, 2) in `steps` steps; the noise is the same for all objectives and step counts."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise"))
    noise = torch.randn(count, 2, generator=generator).to(device)
    sampler = objective.sampler(steps)
    again = torch.randn(sampler.step_noises, count, 2, generator=generator).to(device)
    return sampler(BoundNetwork(network, None), noise, again).cpu()


def check_same(config: MixtureConfig, name: str, path: Path) -> MixtureResult:
    """A results file that is there, if it is of the same comparison.

    Raises:
        FileExistsError: it is not.
    """
    result, (_, options) = read_mixture_result(path), make_objective(name, config.objectives[name])
    trainer = config.trainer
    for what, there, here in (
        ("options", result.options, options),
        ("mixture", result.mixture, to_mapping(config.mixture)),
        ("updates", result.updates, trainer.steps),
        ("batch_size", result.batch_size, trainer.batch_size),
        ("seeds", result.seeds, config.seeds),
        ("count", result.count, config.count),
        ("steps", [row.steps for row in result.rows], list(config.steps)),
    ):
        if there != here:
            raise FileExistsError(f"{path} has {what} {there}, not {here}: choose another folder, or remove it")
    return result


def measure(config: MixtureConfig, name: str, target: Path, processes: Processes) -> MixtureResult:
    """Train an objective with every seed, sample, and write its results file."""
    objective, options = make_objective(name, config.objectives[name])
    folders = {seed: Path(config.folder) / f"{name}_{seed}" for seed in config.seeds}
    trained = [train(config, name, seed, folder, processes) for seed, folder in folders.items()]

    def fresh(seed: int, purpose: str) -> torch.Tensor:
        return config.mixture.sample(config.count, torch.Generator().manual_seed(derive_seed(seed, purpose)))

    rows = []
    for steps in config.steps:
        samples = [
            sample(network, objective, steps, config.count, seed, processes.device)
            for seed, (network, _) in zip(config.seeds, trained, strict=True)
        ]
        distances = [
            energy_distance(points, fresh(seed, "fresh")) for seed, points in zip(config.seeds, samples, strict=True)
        ]
        rows.append(
            MixtureRow(
                steps=steps,
                nfe=objective.sampler(steps).evaluations,
                mean=round(sum(distances) / len(distances), 6),
                per_seed=tuple(round(distance, 6) for distance in distances),
                samples=tuple((round(x, 3), round(y, 3)) for x, y in samples[0][: config.shown].tolist()),
            )
        )
    parameters = sum(p.numel() for p in trained[0][0].parameters())
    floors = [abs(energy_distance(fresh(seed, "fresh"), fresh(seed, "other"))) for seed in config.seeds]
    result = MixtureResult(
        name=f"mixture_comparison_{name}",
        objective=name,
        options=options,
        mixture=to_mapping(config.mixture),
        network=f"an MLP of {parameters / 1e6:.2f} M parameters",
        command=current_command(),
        commit=current_commit(),
        hardware=describe_hardware(processes.device),
        versions=installed_versions(),
        updates=config.trainer.steps,
        batch_size=config.trainer.batch_size,
        seeds=config.seeds,
        evaluations=round(evaluations_per_row(objective, config.trainer.steps, config.trainer.batch_size), 3),
        seconds=round(sum(seconds for _, seconds in trained) / len(trained), 1),
        count=config.count,
        floor=round(max(floors), 6),
        rows=tuple(rows),
    )
    write_json(target, to_mapping(result))
    return result


@command("compare_on_mixture")
def main(values: dict[str, Any]) -> None:
    """Measure what is not measured yet, print the table, draw the picture."""
    config = from_mapping(MixtureConfig, values)
    names = config.only or tuple(config.objectives)
    folder = Path(config.results or config.folder)
    targets = {name: folder / f"mixture_comparison_{name}.json" for name in names}
    for name, target in targets.items():  # what does not fit is said before the first training
        objective, _ = make_objective(name, config.objectives[name])
        objective.phases(config.trainer.steps)
        if target.exists():
            check_same(config, name, target)
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    with join_processes(config.device) as processes:
        for number, (name, target) in enumerate(targets.items(), 1):
            started = time.perf_counter()
            done = check_same(config, name, target) if target.exists() else measure(config, name, target, processes)
            results.append(done)
            print(f"[{number}/{len(names)}] {name}: {time.perf_counter() - started:.0f} s", flush=True)
    print(f"\n{mixture_table(results)}\n")
    picture = Path(config.folder) / "mixture.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(mixture_samples(results))
    print(f"{os.path.relpath(picture)}: samples of the first seed")


if __name__ == "__main__":
    main()
