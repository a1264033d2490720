"""The policy's network: an observation encoder and an action head, built by name.

Shapes: B batch, T horizon, A action channels, G conditioning channels.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from shortcut_policy.core.network import Condition
from shortcut_policy.nn.observation_encoder import ObservationEncoder
from shortcut_policy.nn.transformer import ActionTransformer
from shortcut_policy.nn.unet1d import Unet1d

ACTION_HEADS: Mapping[str, type[nn.Module]] = {"unet1d": Unet1d, "transformer": ActionTransformer}

KNOWN_ACTIONS, KNOWN_MASK = "known_actions", "known_mask"
"""Leaves of the condition of a network that is given a part of the chunk: (B, T, A) normalised, and (B, T) bool."""


class PolicyNetwork(nn.Module):
    """Encoder and action head behind the core's `Network` interface.

    Where a part of the chunk is given, it belongs to the condition, and stands in the place of x whenever the head is
    asked: in training and sampling, by whoever asks, whatever the objective or its preconditioning made of x there. A
    mask tells the head which actions are given (in arXiv 2512.05964, a time of their own does: they are without noise).

    Args:
        encoder: of the observations.
        action_dim: A.
        horizon: T.
        head: name of the action head.
        options: the head's own arguments.
        given_actions: whether a part of the chunk may be given, in `KNOWN_ACTIONS` and `KNOWN_MASK` of the condition.

    Raises:
        ValueError: unknown head or option, a size that does not fit, or an observation with one of these two names.
    """

    def __init__(
        self,
        encoder: ObservationEncoder,
        action_dim: int,
        horizon: int,
        head: str = "unet1d",
        options: Mapping[str, Any] | None = None,
        given_actions: bool = False,
    ) -> None:
        super().__init__()
        if head not in ACTION_HEADS:
            raise ValueError(f"unknown network {head!r}: known are {', '.join(ACTION_HEADS)}")
        self.encoder = encoder
        self.given_actions = given_actions
        taken = {KNOWN_ACTIONS, KNOWN_MASK}.intersection((*encoder.keys, *encoder.cameras))
        if given_actions and taken:
            raise ValueError(f"observation {min(taken)!r} has a name that prefix_steps needs: give it another one")
        try:
            self.head = ACTION_HEADS[head](
                action_dim, horizon, encoder.output_dim, extra_channels=int(given_actions), **(options or {})
            )
        except TypeError as error:
            raise ValueError(f"network {head!r}: {error}") from error

    def compile(self, *args: Any, **options: Any) -> None:
        """As `nn.Module.compile`; image encoders, which run in `encode` and not in `forward`, are compiled as well."""
        super().compile(*args, **options)
        for encoder in self.encoder.images.values():
            encoder.compile(*args, **options)

    def encode(self, condition: Condition) -> Condition:
        """Encode normalised observations {key: (B, To, D) or (B, To, C, h, w)}: (B, G), with the given actions."""
        observation: Tensor = self.encoder(condition)
        if not self.given_actions:
            return observation
        assert isinstance(condition, Mapping)
        return {"observation": observation, **{key: condition[key] for key in (KNOWN_ACTIONS, KNOWN_MASK)}}

    def forward(self, x: Tensor, t: Tensor, d: Tensor, encoded: Condition) -> Tensor:
        """x (B, T, A), t and d (B,), what `encode` makes -> (B, T, A); where actions are given, it means nothing."""
        if not self.given_actions:
            return self.head(x, t, d, encoded)
        assert isinstance(encoded, Mapping)
        mask = encoded[KNOWN_MASK].unsqueeze(-1)  # (B, T, 1)
        x = torch.where(mask, encoded[KNOWN_ACTIONS].to(x.dtype), x)
        return self.head(torch.cat([x, mask.to(x.dtype)], dim=-1), t, d, encoded["observation"])
