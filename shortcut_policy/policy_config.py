"""What a policy is made of: the values that stand in a checkpoint's `config.json`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shortcut_policy.config import Component
from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.data.normalizer import Normalization
from shortcut_policy.vision_config import VisionConfig


@dataclass(frozen=True)
class PolicyConfig:
    """A policy's architecture, objective and window.

        observations   o O                              observation_steps = 2, O: newest
        chunk            A a a a a a a a a a a a ...    horizon = 16, A: the action for O
        executed         A a a a a a a a                action_steps = 8
        may be known     A a a a                        prefix_steps = 4

    Args:
        observation_dims: channels of every low-dimensional observation, in the order in which they are joined.
        action_dim: channels of the action as the network sees it.
        observation_steps: To, observations per decision.
        horizon: T, actions in a chunk.
        action_steps: Ta, actions executed before the next decision.
        action_offset: time of the chunk's first action relative to the newest observation: 0, or -(To - 1) for
            Diffusion Policy's alignment, whose first actions lie in the past.
        network: the action head.
        objective: the objective, which also samples.
        action_codec: what the actions mean, and how the network sees them.
        normalization: of observations and actions.
        mask_padding: whether actions that only repeat one at the episode's edge are left out of the loss.
        image_shapes: (H, W, C) of every image among the observations, as the cameras give it.
        vision: how they are seen; null where there are none.
        prefix_steps: P, at most how many actions from now on may be known, because they are committed already, when a
            chunk is sampled, which then continues them; 0: such a chunk is never trained (see `action_prefix`).
        noise_scale: standard deviation of the noise that sampling begins with, 0 or more; null for 1, that of the
            training. Below 1, chunks keep to what is likely. Noise that a sampler adds on the way stays as it is, and
            objectives that sample from none (regression, MIP) do not ask for it.
        metadata: JSON values that travel with the checkpoint, such as the task.

    Raises:
        ValueError: a number that does not fit the others; the message quotes them.
    """

    observation_dims: Mapping[str, int]
    action_dim: int
    observation_steps: int = 2
    horizon: int = 16
    action_steps: int = 8
    action_offset: int = 0
    network: Component = field(default_factory=lambda: Component("unet1d"))
    objective: Component = field(default_factory=lambda: Component("shortcut"))
    action_codec: ActionCodec = field(default_factory=ActionCodec)
    normalization: Normalization = "limits"
    mask_padding: bool = False
    image_shapes: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    vision: VisionConfig | None = None
    prefix_steps: int = 0
    noise_scale: float | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = [*self.observation_dims.values(), *(side for shape in self.image_shapes.values() for side in shape)]
        if min(sizes, default=0) < 1:
            raise ValueError(
                f"a policy needs observations of at least one channel, got {dict(self.observation_dims)}"
                + (f" and images {dict(self.image_shapes)}" if self.image_shapes else "")
            )
        twice = self.observation_dims.keys() & self.image_shapes.keys()
        if twice:
            raise ValueError(f"observation {min(twice)!r} cannot be both numbers and an image")
        if bool(self.image_shapes) != (self.vision is not None):
            raise ValueError(f"images {dict(self.image_shapes)} do not fit vision={self.vision}: one needs the other")
        for name in ("action_dim", "observation_steps", "horizon", "action_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if not -self.horizon < self.action_offset <= 0:
            raise ValueError(
                f"action_offset must lie in (-horizon, 0] = (-{self.horizon}, 0], got {self.action_offset}"
            )
        codec = self.action_codec
        if codec.representation != "as_stored" and self.action_dim != codec.encoded_dim(7 * codec.arms):
            raise ValueError(f"action_dim={self.action_dim} does not fit actions {codec}: encode the data's actions")
        if self.action_steps > self.horizon + self.action_offset:
            raise ValueError(
                f"action_steps={self.action_steps} cannot be executed: a chunk of horizon={self.horizon} with "
                f"action_offset={self.action_offset} holds {self.horizon + self.action_offset} actions from now on"
            )
        if not 0 <= self.prefix_steps < self.horizon + self.action_offset:
            raise ValueError(
                f"prefix_steps={self.prefix_steps} must be 0 or more, and leave something of the "
                f"{self.horizon + self.action_offset} actions from now on to be sampled"
            )
        if self.noise_scale is not None and not 0.0 <= self.noise_scale < math.inf:
            raise ValueError(f"noise_scale must be 0 or more and finite, got {self.noise_scale}")

    @property
    def observation_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of a single observation of every key: (D,) for numbers, (H, W, C) for images."""
        return {key: (dim,) for key, dim in self.observation_dims.items()} | dict(self.image_shapes)
