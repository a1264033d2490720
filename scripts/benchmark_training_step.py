"""What a training step costs beside the bare network: `python scripts/benchmark_training_step.py device=cpu`.

The floor is the bare network's forward and backward on the batch plus two bootstrap forwards on its bootstrap rows;
the step is the trainer's own update. Both are timed in turns, so that a noisy machine is noisy for both.
"""

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra_command import command
from timing import time_in_turns

from shortcut_policy.config import from_mapping
from shortcut_policy.core.network import BoundNetwork
from shortcut_policy.core.objectives.shortcut import ShortcutDraw
from shortcut_policy.data.batches import WindowBatches
from shortcut_policy.data.episodes import Episodes
from shortcut_policy.data.windows import make_windows
from shortcut_policy.policy import Policy
from shortcut_policy.provenance import current_command, current_commit, describe_hardware, installed_versions
from shortcut_policy.training.config import TrainerConfig
from shortcut_policy.training.distributed import join_processes
from shortcut_policy.training.loop import Trainer


def make_policy_and_batches(
    values: dict[str, Any], config: TrainerConfig, device: torch.device
) -> tuple[Policy, WindowBatches]:
    """A policy of the given network, and random episodes of the task's size: the cost depends on shapes alone."""
    rng = np.random.default_rng(0)
    steps = 25_000
    episodes = Episodes(
        {"state": rng.standard_normal((steps, values["observation_dim"]), np.float32)},
        rng.standard_normal((steps, values["action_dim"]), np.float32),
        np.arange(125, steps + 1, 125),
        "random numbers",
    )
    parts = {part: dict(values[part]) for part in ("network", "objective")}
    components = {part: {"name": options.pop("name"), "options": options} for part, options in parts.items()}
    policy = Policy.for_episodes(episodes, horizon=values["horizon"], **components).to(device)
    windows = make_windows(episodes.episode_ends, observation_steps=2, horizon=values["horizon"])
    return policy, WindowBatches(episodes, windows, config.batch_size, device=device)


@command("benchmark_training_step")
def main(values: dict[str, Any]) -> None:
    """Time the update, its floor, and its parts."""
    target = Path(values["result"]) if values["result"] else None
    if target and target.exists() and not values["overwrite"]:
        raise FileExistsError(f"{target} exists: choose another result=, or say overwrite=true")
    config = from_mapping(TrainerConfig, values["trainer"], "trainer.")
    with join_processes(values["device"]) as processes, tempfile.TemporaryDirectory() as folder:
        device = processes.device
        policy, batches = make_policy_and_batches(values, config, device)
        trainer = Trainer(
            policy.network,
            policy.objective,
            lambda step, rows: policy.prepare(batches.batch(step, rows)),
            config,
            output=folder,
            save_model=lambda path, network: policy.with_network(network).save_pretrained(path),
            processes=processes,
        )
        milliseconds = time_in_turns(make_parts(policy, batches, trainer, config, device), values["repeats"], device)
    floor = milliseconds["forward + backward"] + milliseconds["two bootstrap forwards"]
    ratio = milliseconds["training step"] / floor
    network = ", ".join(f"{option} {value}" for option, value in values["network"].items() if option != "name")
    print(f"{values['network']['name']} ({network}), batch {config.batch_size}, {config.precision}")
    for name, value in milliseconds.items():
        print(f"  {name:24s} {value:8.2f} ms")
    print(f"  training step / (forward + backward + two bootstrap forwards) = {ratio:.3f}")
    if target:
        document = {
            "name": target.stem,
            "command": current_command(),
            "commit": current_commit(),
            "hardware": describe_hardware(device),
            "versions": installed_versions(),
            "repeats": values["repeats"],
            "batch_size": config.batch_size,
            "precision": config.precision,
            "network": values["network"],
            "milliseconds_p50": {name: round(value, 3) for name, value in milliseconds.items()},
            "ratio": round(ratio, 4),
        }
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(document, indent=1) + "\n")


def make_parts(
    policy: Policy, batches: WindowBatches, trainer: Trainer, config: TrainerConfig, device: torch.device
) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    network, objective = policy.network, policy.objective
    batch = policy.prepare(batches.batch(0))
    generator = torch.Generator(device).manual_seed(0)
    draw = objective.draw(batch.data.shape, 0.0, generator)
    if not isinstance(draw, ShortcutDraw) or not draw.bootstrap.any():
        raise ValueError("this benchmark times a shortcut step with bootstrap rows: use objective=shortcut")
    rows = draw.bootstrap.nonzero().squeeze(1).to(device)
    phase = trainer.phase_at(0)[0]

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bf16")

    def forward_backward() -> None:
        network.zero_grad(set_to_none=True)
        with autocast():
            prediction = BoundNetwork(network, batch.condition)(draw.noise, draw.t, draw.d)
            loss = (prediction.float() - batch.data).square().mean()
        loss.backward()

    bootstrap_rows = (draw.noise[rows], draw.t[rows], draw.d[rows])

    def bootstrap_forwards() -> None:
        with torch.no_grad(), autocast():
            target = BoundNetwork(trainer.ema_network, batch.condition).rows(rows)
            target(*bootstrap_rows)
            target(*bootstrap_rows)

    return {
        "training step": lambda: trainer.update(phase, config.warmup_steps),
        "forward + backward": forward_backward,
        "two bootstrap forwards": bootstrap_forwards,
        "batch": lambda: policy.prepare(batches.batch(1)),
        "draw": lambda: objective.draw(batch.data.shape, 0.0, generator),
        "EMA": lambda: trainer.average(),
        "clipping + AdamW": lambda: trainer.descend(),
    }


if __name__ == "__main__":
    main()
