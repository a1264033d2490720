"""A policy as a function of tensors alone: what is exported, what its file says of itself, and how the two compare.

Shapes: B batch, To observation steps, n draws of noise, T horizon, A action channels, T' actions in a chunk from now
on, E channels of the environment's action.
"""

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shortcut_policy.policy import Policy

METADATA_VERSION = 1

ChunkFunction = Callable[[Mapping[str, np.ndarray], np.ndarray], np.ndarray]
"""({key: (B, To, *shape)}, noise (n, B, T, A)) -> actions (B, T', E); numbers are float32, images uint8."""


class ChunkModule(nn.Module):
    """A policy with its number of steps, from raw observations to the environment's actions.

    Normaliser, crops, sampler and the decoding of actions are inside. It is a copy, for inference: the policy may go
    on learning.

    Args:
        policy: on the device for which it is exported.
        num_steps: network evaluations per chunk.

    Attributes:
        keys: names of the observations, in the order in which `forward` takes them.
        draws: n, 1 + how often the sampler noises again on the way.

    Raises:
        ValueError: the objective cannot sample in so many steps, or an observation has the name of another tensor.
    """

    def __init__(self, policy: Policy, num_steps: int) -> None:
        super().__init__()
        self.num_steps = num_steps
        self.sampler = policy.objective.sampler(num_steps)
        self.draws = 1 + self.sampler.step_noises
        self.keys = tuple(policy.config.observation_shapes)
        reserved = {"noise", "actions"} & set(self.keys)
        if reserved:
            raise ValueError(f"observation {min(reserved)!r} cannot be exported: another tensor has this name")
        self.policy = copy.deepcopy(policy).eval().requires_grad_(False)

    def forward(self, *tensors: Tensor) -> Tensor:
        """Map an observation (B, To, *shape) for every key, and noise (n, B, T, A) last, to actions (B, T', E).

        Observations are in the data's units: float32, images uint8. The noise is standard normal: row 0 is what the
        chunk begins with, the others are those that the sampler adds.
        """
        *observations, noise = tensors
        return self.policy.generate(dict(zip(self.keys, observations, strict=True)), self.sampler, noise[0], noise[1:])

    def example(self, batch: int, seed: int) -> tuple[Tensor, ...]:
        """Arguments of `forward` for `batch` rows: as spread as the training data, on the policy's device."""
        config, generator = self.policy.config, torch.Generator().manual_seed(seed)
        tensors = []
        for key, shape in config.observation_shapes.items():
            size = (batch, config.observation_steps, *shape)
            if key in config.image_shapes:
                tensors.append(torch.randint(256, size, generator=generator, dtype=torch.uint8))
            else:  # the normaliser maps the data to [-1, 1], or to deviation 1
                normalizer = copy.deepcopy(self.policy.normalizer.observation[key]).cpu()
                tensors.append(normalizer.inverse(2 * torch.rand(size, generator=generator) - 1))
        tensors.append(torch.randn(self.draws, batch, *self.policy.chunk_shape, generator=generator))
        return tuple(tensor.to(self.policy.device) for tensor in tensors)

    def metadata(self, batch_size: int | None, checkpoint_sha256: str | None) -> dict[str, Any]:
        """JSON values: how to use a file that was exported for `batch_size` rows (None: any), and what is in it."""
        config = self.policy.config
        return {
            "format_version": METADATA_VERSION,
            "task": config.metadata.get("task"),
            "objective": config.objective.name,
            "num_steps": self.num_steps,
            "observations": {
                key: {"shape": list(shape), "dtype": "uint8" if key in config.image_shapes else "float32"}
                for key, shape in config.observation_shapes.items()
            },
            "observation_steps": config.observation_steps,
            "noise_shape": [self.draws, *self.policy.chunk_shape],  # of one robot: (n, T, A)
            "noise_scale": config.noise_scale,  # inside the graph: the noise that it is given is standard normal
            "batch_size": batch_size,
            "action_steps": config.action_steps,
            "checkpoint_sha256": checkpoint_sha256,
        }

    @torch.no_grad()
    def largest_difference(self, exported: ChunkFunction, batch: int, seeds: int = 5) -> float:
        """How far the exported policy's actions are from this one's, over random observations and noise.

        Actions are compared as the network sees them, normalised and with rotations as rot6d (rotation vectors are
        not unique at an angle of pi), and the difference is a share of the range from -1 to 1: that of the data with
        normalization "limits", two standard deviations with "gaussian".
        """
        codec, normalizer = self.policy.config.action_codec, copy.deepcopy(self.policy.normalizer.action).cpu()
        differences = []
        for seed in range(seeds):
            tensors = self.example(batch, seed)
            *observations, noise = (tensor.cpu().numpy() for tensor in tensors)
            pair = (
                self(*tensors).cpu(),
                torch.from_numpy(exported(dict(zip(self.keys, observations, strict=True)), noise)),
            )
            expected, actual = (normalizer(codec.encode(actions.double())) for actions in pair)
            differences.append((expected - actual).abs().max() / 2)
        return float(torch.stack(differences).max())  # NaN, if there is one
