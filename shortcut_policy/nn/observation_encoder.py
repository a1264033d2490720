"""Observations of all kinds joined into one vector: numbers as they are, images through their encoders.

Shapes: B batch, To observation steps, D channels of an observation, C, h, w of an image, F features of one.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shortcut_policy.nn.image_encoders import make_image_encoder


class ObservationEncoder(nn.Module):
    """Flattens observations over keys and time: {key: (B, To, D) or (B, To, C, h, w)} -> (B, G).

    Args:
        dims: D of every low-dimensional observation, in the order in which they are joined; images follow.
        steps: To, observations per decision.
        image_shapes: (C, h, w) of every image, as the encoder gets it.
        image_encoder: name of the images' encoder.
        shared: whether all cameras have the same encoder.
        options: the image encoder's own arguments.

    Attributes:
        output_dim: G, To times the sum of all D and F.

    Raises:
        ValueError: an encoder or option is unknown, images of several shapes are to share an encoder, or a name cannot
            be that of a module.
        ImportError: a library of the encoder is missing.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        steps: int,
        image_shapes: Mapping[str, Sequence[int]] | None = None,
        image_encoder: str = "small_cnn",
        shared: bool = False,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.keys = tuple(dims)
        shapes = {key: tuple(shape) for key, shape in (image_shapes or {}).items()}
        for key in shapes:
            if not key.isidentifier() or hasattr(nn.ModuleDict, key):
                raise ValueError(f"observation {key!r} cannot be a key: use a plain name such as 'agentview_image'")
        self.cameras = tuple(shapes)
        self.shared = shared and bool(shapes)
        if self.shared and len(set(shapes.values())) > 1:
            raise ValueError(f"vision.shared=true needs cameras of one shape, got {shapes}: set it to false")
        names = self.cameras[:1] if self.shared else self.cameras
        self.images = nn.ModuleDict(
            {key: make_image_encoder(image_encoder, shapes[key], options or {}) for key in names}
        )
        features = sum(self.encoder_of(key).output_dim for key in self.cameras)
        self.output_dim = steps * (sum(dims.values()) + features)

    def forward(self, observation: Mapping[str, Tensor]) -> Tensor:
        """Encode {key: (B, To, D) or (B, To, C, h, w)}: (B, G). Of a frozen model, features (B, To, M) will do."""
        parts = [observation[key] for key in self.keys]
        if self.shared:
            # all cameras in one batch; flattened first, for `cat` keeps channels last of (N, C, h, w) only
            images = torch.cat([observation[key].flatten(0, 1) for key in self.cameras])
            features = self.encoder_of(self.cameras[0])(images)  # (cameras B To, F)
            parts += features.unflatten(0, (len(self.cameras), *observation[self.cameras[0]].shape[:2])).unbind()
        else:
            parts += [self._encode(key, observation[key]) for key in self.cameras]
        return torch.cat(parts, dim=-1).flatten(1)

    def encoder_of(self, camera: str) -> nn.Module:
        """The encoder through which a camera's images go."""
        return self.images[self.cameras[0] if self.shared else camera]

    def _encode(self, camera: str, images: Tensor) -> Tensor:
        """(B, To, C, h, w) -> (B, To, F)."""
        return self.encoder_of(camera)(images.flatten(0, 1)).unflatten(0, images.shape[:2])
