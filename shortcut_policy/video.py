"""MP4 files that every browser plays."""

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

__all__ = ["write_mp4"]


def write_mp4(path: str | os.PathLike[str], frames: Sequence[np.ndarray], fps: float) -> Path:
    """Write frames as H.264 in yuv420p; the file appears under its name only when it is complete.

    Args:
        path: Name of the file, ending in ".mp4"; missing folders are made, an existing file is replaced.
        frames: (H, W, 3) uint8 each, all of one size; an odd side grows by repeating its last row or column.
        fps: Frames per second, > 0.

    Raises:
        ValueError: If the name, the frames or `fps` do not fit the above.
        ImportError: If imageio or imageio-ffmpeg is not installed.
    """
    path = Path(path)
    if path.suffix != ".mp4":
        raise ValueError(f"{str(path)!r} does not name an MP4 file: end it in '.mp4'")
    if not fps > 0:
        raise ValueError(f"fps={fps} shows no frame: give a positive rate")
    if len(frames) == 0:
        raise ValueError(f"there are no frames to write to {str(path)!r}: give at least one")
    for frame in frames:
        if frame.dtype != np.uint8 or frame.shape != frames[0].shape or frame.ndim != 3 or frame.shape[2] != 3:
            raise ValueError(f"a frame is {frame.dtype} {frame.shape}: give uint8 (H, W, 3), all of one size")
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg  # noqa: F401 (imageio would name it only when it fails to find a writer)
    except ImportError as error:
        raise ImportError(
            f"writing MP4 files needs {error.name}: install it with `pip install -e .[report]`"
        ) from error

    height, width, _ = frames[0].shape
    padding = ((0, height % 2), (0, width % 2), (0, 0))  # yuv420p halves the colour planes
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.stem}.partial.mp4")
    try:
        writer = imageio.get_writer(
            partial,
            format="FFMPEG",
            fps=fps,
            codec="libx264",
            pixelformat="yuv420p",
            macro_block_size=2,
            output_params=["-movflags", "+faststart"],  # the index comes first: a browser starts before the end
        )
        with closing(writer):  # as a context manager of its own it would leave ffmpeg running after an error
            for frame in frames:
                writer.append_data(np.pad(frame, padding, mode="edge"))
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path
