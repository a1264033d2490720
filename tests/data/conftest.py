"""Small replay buffers for the tests of what reads them."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import zarr


@pytest.fixture
def replay_arrays() -> dict[str, np.ndarray]:
    """Two episodes of 4 and 6 steps in Push-T's arrays; no value is 0, so a filled-in chunk shows."""
    steps = np.arange(1, 11, dtype=np.float32)[:, None]
    return {
        "data/action": steps * [10, 20],
        "data/state": steps * [1, 2, 3, 4, 0.5],
        "data/keypoint": (steps * np.arange(1, 19)).reshape(10, 9, 2),
        "meta/episode_ends": np.array([4, 10]),
    }


@pytest.fixture
def write_replay(tmp_path, replay_arrays) -> Callable[..., Path]:
    """Return a function that writes arrays as a replay buffer in chunks of 4 rows, as a folder or a zip file."""

    def write(
        arrays: Mapping[str, np.ndarray] | None = None,
        *,
        name: str = "replay.zarr",
        zarr_format: int = 2,
        zipped_as: str | None = None,
        **options,
    ) -> Path:
        folder = tmp_path / name
        group = zarr.open_group(folder, mode="w", zarr_format=zarr_format)
        for key, values in (replay_arrays if arrays is None else arrays).items():
            if values.dtype == np.float64:
                values = values.astype(np.float32)
            chunks = (max(min(4, len(values)), 1), *values.shape[1:]) if values.ndim else ()
            stored = group.create_array(key, shape=values.shape, chunks=chunks, dtype=values.dtype, **options)
            stored[...] = values
        return folder if zipped_as is None else zip_folder(folder, folder.with_suffix(".zip"), zipped_as)

    return write


def zip_folder(folder: Path, archive: Path, prefix: str = "") -> Path:
    """Zip a folder so that its files lie below `prefix` in the archive."""
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, str(Path(prefix) / path.relative_to(folder)))
    return archive
