"""What a policy sees of camera images: crops and colours, drawn for training, fixed otherwise.

Shapes: B batch, To observation steps, H and W of the image, h and w of the crop, C channels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from shortcut_policy.vision_config import VisionConfig

_LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601, as torchvision's


@dataclass(frozen=True)
class ViewDraw:
    """The random part of the views of a whole batch, so that micro-batches and processes can take their rows.

    Attributes:
        corner: camera -> (B, 2), where between its first and last place the crop lies, in [0, 1): vertical, horizontal.
        color: camera -> (B, 3), factors of brightness, contrast and saturation.
    """

    corner: Mapping[str, Tensor]
    color: Mapping[str, Tensor]

    def rows(self, rows: slice) -> "ViewDraw":
        """The draws of some rows."""
        return ViewDraw(
            {key: values[rows] for key, values in self.corner.items()},
            {key: values[rows] for key, values in self.color.items()},
        )


def draw_views(config: VisionConfig, cameras: Sequence[str], batch: int, generator: torch.Generator) -> ViewDraw:
    """Draw crops and colours for `batch` rows; each camera has its own, and all time steps of a row the same.

    The same for all time steps, so that what moves between two images is the scene and not the crop.
    """
    strengths = (config.brightness, config.contrast, config.saturation)
    corner, color = {}, {}
    for key in cameras:
        uniform = torch.rand(batch, 5, generator=generator, device=generator.device)
        corner[key] = uniform[:, :2]
        # numbers of Python, not tensors made of them: those would make a GPU wait
        factors = [1.0 + strength * (2.0 * uniform[:, 2 + i] - 1.0) for i, strength in enumerate(strengths)]
        color[key] = torch.stack(factors, dim=1)
    return ViewDraw(corner, color)


def view(images: Tensor, config: VisionConfig, corner: Tensor | None = None, color: Tensor | None = None) -> Tensor:
    """Crop images and turn them into what an encoder takes.

    Args:
        images: (B, To, H, W, C) uint8.
        config: of the policy.
        corner: (B, 2), see `ViewDraw`; None for the centre.
        color: (B, 3), see `ViewDraw`; None for the colours as they are.

    Returns:
        (B, To, C, h, w) float32 in [0, 1]; in memory, channels come last.
    """
    height, width = (config.cropped(side) for side in images.shape[2:4])
    cropped = _crop(images, height, width, corner).float() / 255.0
    if color is not None and (config.brightness or config.contrast or config.saturation):
        cropped = _recolor(cropped, color)
    return cropped.movedim(-1, -3)


def _crop(images: Tensor, height: int, width: int, corner: Tensor | None) -> Tensor:
    spare = (images.shape[2] - height, images.shape[3] - width)
    if corner is None:
        top, left = (round(pixels / 2) for pixels in spare)
        return images[:, :, top : top + height, left : left + width]
    if spare == (0, 0):
        return images
    top, left = ((corner[:, i].to(images.device) * (pixels + 1)).long() for i, pixels in enumerate(spare))  # (B,)
    y = top[:, None] + torch.arange(height, device=images.device)  # (B, h)
    x = left[:, None] + torch.arange(width, device=images.device)  # (B, w)
    rows, steps = (torch.arange(count, device=images.device) for count in images.shape[:2])
    # one gather, whose result lies in memory as (B, To, h, w, C): what convolutions call channels last
    return images[rows[:, None, None, None], steps[:, None, None], y[:, None, :, None], x[:, None, None, :]]


def _recolor(images: Tensor, color: Tensor) -> Tensor:
    """(B, To, h, w, C) in [0, 1] with other brightness, contrast (about the image's mean) and saturation, in order.

    A fourth channel, depth or opacity, stays as it is.
    """
    if images.shape[-1] > len(_LUMINANCE):
        colors, rest = images[..., : len(_LUMINANCE)], images[..., len(_LUMINANCE) :]
        return torch.cat([_recolor(colors, color), rest], dim=-1)
    brightness, contrast, saturation = color.to(images.device)[:, :, None, None, None, None].unbind(1)
    images = (images * brightness).clamp(0.0, 1.0)
    mean = _gray(images).mean(dim=(2, 3), keepdim=True)  # (B, To, 1, 1, 1)
    images = (mean + contrast * (images - mean)).clamp(0.0, 1.0)
    gray = _gray(images)
    return (gray + saturation * (images - gray)).clamp(0.0, 1.0)


def _gray(images: Tensor) -> Tensor:
    """(..., C) -> (..., 1): the luminance of red, green and blue; what is gray stays so."""
    if images.shape[-1] == 1:
        return images
    return sum(share * images[..., i : i + 1] for i, share in enumerate(_LUMINANCE))
