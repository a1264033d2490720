"""The images of a data set that stay in their HDF5 file: where they lie, and which frames show some of its rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shortcut_policy.data.array_source import ArraySource
from shortcut_policy.data.episodes import Episodes
from shortcut_policy.data.frame_reader import FrameRun
from shortcut_policy.data.robomimic_hdf5 import observation_array, open_robomimic


@dataclass(frozen=True)
class StoredImages:
    """The images among the observations of a robomimic data set.

    Attributes:
        path: of the HDF5 file.
        arrays: key -> path of the array below each demo's group.
        shapes: key -> (H, W, C).
        lengths: demo -> its number of frames.
    """

    path: Path
    arrays: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    lengths: Mapping[str, int]

    def check_fits(self, episodes: Episodes) -> None:
        """Raise ValueError unless every episode is one of the demos, with as many steps as that has frames."""
        if episodes.names is None:
            raise ValueError(f"episodes of {episodes.source} have no names: read them with read_robomimic")
        for name, steps in zip(episodes.names, episodes.lengths.tolist(), strict=True):
            if self.lengths.get(name) != steps:
                frames = self.lengths.get(name, "no")
                raise ValueError(f"{name} has {steps} steps in {episodes.source}, but {frames} frames in {self.path}")


def find_images(
    path: str | Path, observations: Mapping[str, ArraySource], *, filter_key: str | None = None
) -> StoredImages:
    """Find out which observations are images, without reading any; the arguments are those of `read_robomimic`.

    Raises:
        FileNotFoundError: when there is nothing at `path`.
        ValueError: as `read_robomimic`, or when images have columns or a transform.
    """
    arrays, shapes = {}, {}
    with open_robomimic(path) as file:
        demos = file.demos(filter_key)
        lengths = [0] * len(demos)
        for key, source in observations.items():
            source = source.named(key)
            name = observation_array(source)
            lengths = [len(file.array(demo, name)) for demo in demos]
            stacked = file.stack(demos, lengths, name)
            if stacked.is_image:
                stacked.check_source(source)
                arrays[key], shapes[key] = name, stacked.datasets[0].shape[1:]
    return StoredImages(Path(path), arrays, shapes, dict(zip(demos, lengths, strict=True)))


def frame_runs(rows: np.ndarray, episodes: Episodes) -> tuple[FrameRun, ...]:
    """Cut rising rows (U,) of the data into runs that lie next to each other in one episode."""
    if len(rows) == 0:
        return ()
    episode = np.searchsorted(episodes.episode_ends, rows, side="right")
    first = np.flatnonzero(np.r_[True, (np.diff(rows) != 1) | (np.diff(episode) != 0)])
    last = np.r_[first[1:], len(rows)] - 1
    start = episodes.episode_starts[episode[first]]
    return tuple(
        FrameRun(episodes.names[number], int(begin), int(end))
        for number, begin, end in zip(episode[first], rows[first] - start, rows[last] + 1 - start, strict=True)
    )
