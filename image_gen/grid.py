"""Samples as one picture: a grid for every number of steps, side by side."""

import io
from collections.abc import Mapping

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
    try:
        from torchvision.transforms.functional import to_pil_image
        from torchvision.utils import make_grid
    except ImportError as error:
        raise ImportError("image grids need the extra 'image': pip install -e '.[image]'") from error
    from PIL import Image, ImageDraw

    grids = []
    for steps, some in images.items():
        large = some.repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
        grids.append((steps, to_pil_image(make_grid(large, nrow=columns, padding=scale, pad_value=96))))
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
