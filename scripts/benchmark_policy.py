"""The policy that a benchmark times: a checkpoint's, or one with random weights and given shapes."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig

from shortcut_policy.config import Component, from_mapping
from shortcut_policy.policy import Policy
from shortcut_policy.policy_config import PolicyConfig
from shortcut_policy.pretrained import find_checkpoint
from shortcut_policy.vision_config import VisionConfig


@dataclass(frozen=True)
class BenchmarkPolicy:
    """The values of `configs/benchmark_policy.yaml`, with those of `network=` and `vision=`."""

    checkpoint: str | None
    observations: Mapping[str, int] | None
    images: Mapping[str, tuple[int, int, int]] | None
    observation_steps: int
    action_dim: int
    horizon: int
    network: Component
    vision: VisionConfig

    @classmethod
    def take(cls, values: dict[str, Any]) -> "BenchmarkPolicy":
        """Take its values out of a command's."""
        network = values.pop("network")
        own = {field.name: values.pop(field.name) for field in fields(cls) if field.name != "network"}
        return from_mapping(cls, own | {"network": {"name": network.pop("name"), "options": network}})

    def make(self, device: torch.device) -> Policy:
        """The policy."""
        if self.checkpoint is not None:
            return Policy.from_pretrained(find_checkpoint(self.checkpoint), device)
        torch.manual_seed(0)
        config = PolicyConfig(
            observation_dims={"state": 6} if self.observations is None else self.observations,
            action_dim=self.action_dim,
            observation_steps=self.observation_steps,
            horizon=self.horizon,
            network=self.network,
            image_shapes=self.images or {},
            vision=self.vision if self.images else None,
        )
        return Policy(config).to(device).eval().requires_grad_(False)

    def name(self) -> str:
        """That of the network's preset, or the checkpoint."""
        return self.checkpoint or HydraConfig.get().runtime.choices["network"]


def draw_observations(policy: Policy, rows: int) -> dict[str, torch.Tensor]:
    """Random observations {key: (rows, To, *shape)} in host memory: what they are changes no latency."""
    generator, steps = torch.Generator().manual_seed(0), policy.config.observation_steps
    return {
        key: torch.randint(256, (rows, steps, *shape), generator=generator, dtype=torch.uint8)
        if key in policy.config.image_shapes
        else torch.randn(rows, steps, *shape, generator=generator)
        for key, shape in policy.config.observation_shapes.items()
    }
