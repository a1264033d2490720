"""Where in a feature map something is: spatial softmax (Levine et al., arXiv 1504.00702), as robomimic uses it."""

import torch
from torch import Tensor, nn


class SpatialSoftmax(nn.Module):
    """Reduces every feature map to the mean position of its softmax.

    Args:
        channels: C of the feature map.
        keypoints: K, maps made of it by a 1 x 1 convolution.

    Attributes:
        output_dim: 2 K.
    """

    def __init__(self, channels: int, keypoints: int = 32) -> None:
        super().__init__()
        if keypoints < 1:
            raise ValueError(f"keypoints must be positive, got {keypoints}")
        self.maps = nn.Conv2d(channels, keypoints, 1)
        self.output_dim = 2 * keypoints

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) -> (N, 2 K): for every map x and y in [-1, 1], from the upper left to the lower right corner."""
        maps = self.maps(features)
        weights = maps.flatten(2).float().softmax(dim=-1).reshape(maps.shape)  # (N, K, h, w)
        y, x = (torch.linspace(-1.0, 1.0, side, device=maps.device) for side in maps.shape[-2:])
        position = torch.stack([(weights.sum(dim=-2) * x).sum(dim=-1), (weights.sum(dim=-1) * y).sum(dim=-1)], dim=-1)
        return position.flatten(1)
