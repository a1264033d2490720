"""A problem that trains in milliseconds; as a script (`toy.py OUTPUT STEPS`, under torchrun too), one run of it."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from shortcut_policy.core.objectives.base import Batch
from shortcut_policy.core.objectives.shortcut import Shortcut
from shortcut_policy.training.config import EmaConfig, TrainerConfig
from shortcut_policy.training.distributed import join_processes
from shortcut_policy.training.loop import Trainer


class ToyNetwork(nn.Module):
    """(x, t, d, condition) -> velocity, for x (B, 4, 2) and condition (B, 3)."""

    def __init__(self, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(8 + 2 + 3, 32), nn.Mish(), nn.Dropout(dropout), nn.Linear(32, 8))

    def encode(self, condition):
        return condition

    def forward(self, x, t, d, encoded):
        return self.layers(torch.cat([x.flatten(1), t[:, None], d[:, None], encoded], dim=1)).unflatten(1, (4, 2))


def toy_batches(batch_size=16):
    """Rows that are a pure function of the step."""

    def batches(step: int, rows: slice) -> Batch:
        generator = torch.Generator().manual_seed(step)
        condition = torch.randn(batch_size, 3, generator=generator)
        data = condition[:, :2, None].expand(-1, -1, 4).transpose(1, 2) + 0.5
        return Batch(data[rows].contiguous(), condition[rows])

    return batches


def make_trainer(output, steps=20, *, objective=None, batches=None, dropout=0.1, **options) -> Trainer:
    """A trainer of the toy network with seed 0."""
    torch.manual_seed(0)
    network = ToyNetwork(dropout)
    beside = ("hooks", "teacher", "processes")
    config = TrainerConfig(
        **{
            "steps": steps,
            "batch_size": 16,
            "learning_rate": 1e-2,
            "warmup_steps": 5,
            "checkpoint_every": 5,
            "log_every": 5,
            "target_ema": EmaConfig(0.9),
            "progress": False,
        }
        | {key: value for key, value in options.items() if key not in beside}
    )
    return Trainer(
        network,
        objective or Shortcut(base_steps=8),
        batches or toy_batches(),
        config,
        output=output,
        save_model=lambda folder, network: save_file(network.state_dict(), folder / "model.safetensors"),
        **{key: value for key, value in options.items() if key in beside},
    )


if __name__ == "__main__":
    with join_processes("cpu") as processes:
        make_trainer(Path(sys.argv[1]), int(sys.argv[2]), dropout=0.0, processes=processes).run()
