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
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from torch import nn

from shortcut_policy.config import from_mapping, to_mapping
from shortcut_policy.core.network import BoundNetwork
from shortcut_policy.core.objectives import objective_class
from shortcut_policy.core.objectives.base import Batch, Objective
from shortcut_policy.gaussian_mixture import GaussianRing, energy_distance
from shortcut_policy.mixture_results import MixtureResult, MixtureRow, mixture_table, read_mixture_result
from shortcut_policy.nn.vector_network import VectorNetwork
from shortcut_policy.objective_cost import evaluations_per_row
from shortcut_policy.plots import mixture_samples
from shortcut_policy.provenance import current_command, current_commit, describe_hardware, installed_versions
from shortcut_policy.training.config import TrainerConfig
from shortcut_policy.training.loop import Trainer
from shortcut_policy.training.run_folder import write_json
from shortcut_policy.training.seeding import derive_seed

CONFIGS = Path(__file__).parents[1] / "configs"


@dataclass(frozen=True)
class MixtureConfig:
    """The values of `configs/compare_on_mixture.yaml`."""

    objectives: Mapping[str, Mapping[str, Any]]
    steps: tuple[int, ...]
    seeds: tuple[int, ...]
    mixture: GaussianRing
    network: Mapping[str, int]
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


def make_objective(name: str, changes: Mapping[str, Any]) -> tuple[Objective, dict[str, Any]]:
    """The objective of configs/objective/{name}.yaml with some options in place of its own, and all its options."""
    path = CONFIGS / "objective" / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yaml")))
        raise ValueError(f"unknown objective {name!r}: known are {known}")
    options = dict(OmegaConf.to_container(OmegaConf.load(path))) | dict(changes)
    kind = options.pop("name")
    return from_mapping(objective_class(kind), options, f"objectives.{name}."), options


def train(config: MixtureConfig, name: str, seed: int, folder: Path) -> tuple[nn.Module, float]:
    """Train one network, or go on where it was interrupted, or read it if it is there: its EMA, and the seconds."""
    objective, options = make_objective(name, config.objectives[name])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = VectorNetwork(2, **config.network).to(config.device)
    done = folder / "finished.json"
    run = {"objective": name, "options": options, "mixture": to_mapping(config.mixture), "network": config.network}
    run |= {"trainer": to_mapping(replace(config.trainer, seed=seed))}
    if done.exists():
        if json.loads((folder / "run.json").read_text()) != json.loads(json.dumps(run)):
            raise FileExistsError(f"{folder} holds another training: choose another folder=, or remove it")
        network.load_state_dict(load_file(folder / "checkpoints" / "last" / "model.safetensors"))
        return network, float(json.loads(done.read_text())["seconds"])

    def batch(step: int, rows: slice) -> Batch:
        generator = torch.Generator().manual_seed(derive_seed(seed, "mixture", step))
        return Batch(config.mixture.sample(config.trainer.batch_size, generator)[rows].to(config.device))

    trainer = Trainer(
        network,
        objective,
        batch,
        replace(config.trainer, seed=seed),
        output=folder,
        save_model=lambda path, ema: save_file(ema.state_dict(), path / "model.safetensors"),
        run_config=run,
    )
    progress = trainer.run()
    return trainer.ema_network, progress.seconds


@torch.no_grad()
def sample(network: nn.Module, objective: Objective, steps: int, count: int, seed: int, device: str) -> torch.Tensor:
    """`count` samples (count, 2) in `steps` steps; the noise is the same for all objectives and step counts."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "noise"))
    noise = torch.randn(count, 2, generator=generator).to(device)
    sampler = objective.sampler(steps)
    again = torch.randn(sampler.step_noises, count, 2, generator=generator).to(device)
    return sampler(BoundNetwork(network, None), noise, again).cpu()


def measure(config: MixtureConfig, name: str, target: Path) -> MixtureResult:
    """Train an objective with every seed, sample, and write its results file."""
    objective, options = make_objective(name, config.objectives[name])
    trained = [train(config, name, seed, Path(config.folder) / f"{name}_{seed}") for seed in config.seeds]

    def fresh(seed: int, purpose: str) -> torch.Tensor:
        return config.mixture.sample(config.count, torch.Generator().manual_seed(derive_seed(seed, purpose)))

    rows = []
    for steps in config.steps:
        samples = [
            sample(network, objective, steps, config.count, seed, config.device)
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
        network=f"an MLP of {parameters / 1e6:.2f} M parameters",
        command=current_command(),
        commit=current_commit(),
        hardware=describe_hardware(torch.device(config.device)),
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
    for name, changes in config.objectives.items():
        make_objective(name, changes)  # what does not fit is said before the first training
    folder = Path(config.results or config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    results = []
    for number, name in enumerate(config.objectives, 1):
        target, started = folder / f"mixture_comparison_{name}.json", time.perf_counter()
        results.append(read_mixture_result(target) if target.exists() else measure(config, name, target))
        print(f"[{number}/{len(config.objectives)}] {name}: {time.perf_counter() - started:.0f} s", flush=True)
    picture = Path(config.folder) / "mixture.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    picture.write_bytes(mixture_samples(results))
    print(f"\n{mixture_table(results)}\n\n{os.path.relpath(picture)}: samples of the first seed")


if __name__ == "__main__":
    main()
