"""Linear maps of observations and actions to the range in which networks learn, with their inverse."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import numpy as np
import torch
from torch import Tensor, nn

from shortcut_policy.data.episodes import Episodes

Normalization = Literal["limits", "gaussian", "identity"]
NORMALIZATIONS = ("limits", "gaussian", "identity")


class LinearNormalizer(nn.Module):
    """y = scale (x - centre) for each channel of the last axis, and back.

    The centre is subtracted first: far from zero, scale x + offset would cancel in float32.

    Args:
        dim: channels D. A fresh normalizer is the identity; `fit` makes one from data.
    """

    scale: Tensor
    centre: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(dim))
        self.register_buffer("centre", torch.zeros(dim))

    @classmethod
    def fit(cls, values: np.ndarray, mode: Normalization = "limits", unchanged: Sequence[int] = ()) -> Self:
        """Fit on values (N, D).

        Args:
            unchanged: channels that are left as they are.
            mode: "limits" maps [min, max] to [-1, 1]; "gaussian" maps to mean 0 and deviation 1; "identity"
                changes nothing. A channel that is constant (to float32 rounding) is only shifted to 0.

        Raises:
            ValueError: unknown mode.
        """
        if mode not in NORMALIZATIONS:
            raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {mode!r}")
        values = values.astype(np.float64)
        normalizer = cls(values.shape[-1])
        if mode == "identity":
            return normalizer
        low, high = values.min(axis=0), values.max(axis=0)
        if mode == "limits":
            centre, spread = (low + high) / 2, (high - low) / 2
        else:
            centre, spread = values.mean(axis=0), values.std(axis=0)
        is_constant = high - low <= 1e-6 * np.maximum(1.0, np.abs(centre))
        scale = np.where(is_constant, 1.0, 1.0 / np.where(is_constant, 1.0, spread))
        scale[list(unchanged)], centre[list(unchanged)] = 1.0, 0.0
        normalizer.scale.copy_(torch.from_numpy(scale))
        normalizer.centre.copy_(torch.from_numpy(centre))
        return normalizer

    def forward(self, values: Tensor) -> Tensor:
        """Normalise (..., D)."""
        return (values - self.centre) * self.scale

    def inverse(self, values: Tensor) -> Tensor:
        """Undo `forward` on (..., D)."""
        return values / self.scale + self.centre


class Normalizer(nn.Module):
    """The normalizers of all observations and of the actions; saved with the policy.

    Args:
        observation_dims: channels of every observation key.
        action_dim: channels of the action.

    Raises:
        ValueError: a key that cannot name a module, such as one with a dot.
    """

    def __init__(self, observation_dims: Mapping[str, int], action_dim: int) -> None:
        super().__init__()
        for key in observation_dims:
            if not key.isidentifier() or hasattr(nn.ModuleDict, key):
                raise ValueError(f"observation {key!r} cannot be a key: use a plain name such as 'agent_pos'")
        self.observation = nn.ModuleDict({key: LinearNormalizer(dim) for key, dim in observation_dims.items()})
        self.action = LinearNormalizer(action_dim)

    @classmethod
    def fit(cls, episodes: Episodes, mode: Normalization = "limits") -> Self:
        """Fit on the numbers of the training split; channels of actions that hold rotations stay as they are."""
        low_dim = episodes.low_dim
        normalizer = cls({key: values.shape[-1] for key, values in low_dim.items()}, episodes.actions.shape[-1])
        for key, values in low_dim.items():
            normalizer.observation[key] = LinearNormalizer.fit(values, mode)
        normalizer.action = LinearNormalizer.fit(episodes.actions, mode, episodes.action_codec.rotation_columns())
        return normalizer

    def normalize_observation(self, observation: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Normalise every key (..., D) that the normalizer knows; other keys are left out."""
        return {key: normalizer(observation[key]) for key, normalizer in self.observation.items()}
