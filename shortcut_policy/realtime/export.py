"""How a file of an exported policy comes into being: written aside, compared with the policy, and only then named."""

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from shortcut_policy.realtime.chunk_module import ChunkFunction, ChunkModule

TOLERANCE = 1e-3
"""Share of the actions' range: less than a robot repeats, and far above float32's rounding in most policies.

One step of diffusion that predicts the noise divides that rounding by sqrt(abar) = 0.0005, and may need more.
"""


@dataclass(frozen=True)
class Exported:
    """An exported policy.

    Attributes:
        path: the file.
        difference: the largest from the policy's own actions, as a share of their range.
        bytes: of the file.
    """

    path: Path
    difference: float
    bytes: int


def check_target(path: str | Path, suffix: str, overwrite: bool) -> Path:
    """Where the file shall stand, before any work is done for it.

    Raises:
        ValueError: the name does not end with `suffix`.
        FileExistsError: it is there already, and `overwrite` is false.
    """
    path = Path(path)
    if path.suffix != suffix:
        raise ValueError(f"the file must be called something{suffix}, got {str(path)!r}")
    if path.exists() and not overwrite:
        raise FileExistsError(f"{path} exists already: choose another name or say overwrite=true")
    return path


def write_checked(
    path: Path,
    module: ChunkModule,
    write: Callable[[Path], None],
    load: Callable[[Path], ChunkFunction],
    batch: int,
    tolerance: float,
) -> Exported:
    """Write a file, load it, and give it its name if it acts as the policy does; otherwise nothing is left of it.

    Args:
        path: its name; what stood there is replaced at the end, at once.
        module: what was exported.
        write: writes to a path of the same suffix.
        load: reads such a file.
        batch: rows with which the two are compared.
        tolerance: the largest difference of actions that passes, as a share of their range.

    Raises:
        ValueError: the difference is larger, or not a number.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".export-") as folder:
        written = Path(folder) / path.name
        write(written)
        difference = module.largest_difference(load(written), batch)
        if not difference <= tolerance:  # NaN is no agreement either
            raise ValueError(
                f"the exported policy's actions differ from torch's by {difference:.1e} of their range, more than "
                f"tolerance={tolerance:g}: {path} was not written; raise the tolerance if your robot can bear that"
            )
        size = written.stat().st_size
        os.replace(written, path)
    return Exported(path, difference, size)
