"""The policy's network: an observation encoder and an action head, built by name."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from shortcut_policy.core.network import Condition
from shortcut_policy.nn.observation_encoder import ObservationEncoder
from shortcut_policy.nn.transformer import ActionTransformer
from shortcut_policy.nn.unet1d import Unet1d

ACTION_HEADS: Mapping[str, type[nn.Module]] = {"unet1d": Unet1d, "transformer": ActionTransformer}


class PolicyNetwork(nn.Module):
    """Encoder and action head behind the core's `Network` interface.

    Args:
        encoder: of the observations.
        action_dim: A.
        horizon: T.
        head: name of the action head.
        options: the head's own arguments.

    Raises:
        ValueError: unknown head or option, or a size that does not fit.
    """

    def __init__(
        self,
        encoder: ObservationEncoder,
        action_dim: int,
        horizon: int,
        head: str = "unet1d",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if head not in ACTION_HEADS:
            raise ValueError(f"unknown network {head!r}: known are {', '.join(ACTION_HEADS)}")
        self.encoder = encoder
        try:
            self.head = ACTION_HEADS[head](action_dim, horizon, self.encoder.output_dim, **(options or {}))
        except TypeError as error:
            raise ValueError(f"network {head!r}: {error}") from error

    def compile(self, *args: Any, **options: Any) -> None:
        """As `nn.Module.compile`; image encoders, which run in `encode` and not in `forward`, are compiled as well."""
        super().compile(*args, **options)
        for encoder in self.encoder.images.values():
            encoder.compile(*args, **options)

    def encode(self, condition: Condition) -> Tensor:
        """Encode normalised observations {key: (B, To, D) or (B, To, C, h, w)}: (B, G)."""
        return self.encoder(condition)

    def forward(self, x: Tensor, t: Tensor, d: Tensor, encoded: Tensor) -> Tensor:
        """x (B, T, A), t and d (B,), encoded observations (B, G) -> (B, T, A)."""
        return self.head(x, t, d, encoded)
