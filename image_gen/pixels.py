"""Between images of bytes and what networks see."""

import torch
from torch import Tensor


def to_network(images: Tensor) -> Tensor:
    """uint8 images as the network sees them: float32 in [-1, 1]."""
    return images.float() / 127.5 - 1.0


def to_uint8(images: Tensor) -> Tensor:
    """The inverse, what lies outside cut off."""
    return ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
