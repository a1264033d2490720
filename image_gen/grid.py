"""Samples as pictures: grids of images, side by side or as text in a results file."""

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor


def labelled_grids(images: Mapping[int, Tensor], columns: int, scale: int = 1) -> bytes:
    """A PNG of one grid for every number of steps, which stands above it.

    Args:
        images: number of steps -> (B, C, H, W) uint8 with C = 1 or 3.
        columns: of each grid.
        scale: pixels of the picture for one of an image.

    Raises:
        ImportError: torchvision is missing.
    """
    from PIL import Image, ImageDraw

    grids = []
    for steps, some in images.items():
        large = some.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
        grids.append((steps, _grid(large, columns, padding=scale)))
    title, gap = 16, 4 * scale
    width = sum(grid.width for _, grid in grids) + gap * (len(grids) - 1)
    canvas = Image.new("RGB", (width, title + max(grid.height for _, grid in grids)), "white")
    left = 0
    for steps, grid in grids:
        ImageDraw.Draw(canvas).text((left + 2, 2), f"{steps} step{'s' if steps > 1 else ''}", fill="black")
        canvas.paste(grid, (left, title))
        left += grid.width + gap
    content = io.BytesIO()
    canvas.save(content, format="PNG")
    return content.getvalue()


def grid_to_text(images: Tensor, columns: int) -> str:
    """A grid of images (B, C, H, W) uint8 as a PNG in base64, for a results file.

    Raises:
        ImportError: torchvision is missing.
    """
    content = io.BytesIO()
    _grid(images, columns, padding=1).save(content, format="PNG")
    return base64.b64encode(content.getvalue()).decode()


def text_to_grid(text: str) -> np.ndarray:
    """The pixels (H, W, 3) uint8 of what `grid_to_text` made."""
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(text))) as image:
        return np.asarray(image.convert("RGB"))


def _grid(images: Tensor, columns: int, padding: int) -> Any:
    try:
        from torchvision.transforms.functional import to_pil_image
        from torchvision.utils import make_grid
    except ImportError as error:
        raise ImportError("image grids need the extra 'image': pip install -e '.[image]'") from error
    return to_pil_image(make_grid(images, nrow=columns, padding=padding, pad_value=96))
