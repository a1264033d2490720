"""How different the ways are in which a data set's demonstrations do their task, measured by the paths of the hands."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

__all__ = ["Diversity", "HandPath", "hand_paths", "has_ways", "measure_diversity"]

_LEVER = 0.1  # m: a hand is as wide and as long as this; so far from its centre, a turn becomes a distance
_MOMENTS = 32


@dataclass(frozen=True)
class Diversity:
    """The ways of a data set, and what they explain.

    A path is that of three points, the hand's centre and one 0.1 m along each of its first two axes, at 32 moments
    spread evenly over the demonstration. Distances are root mean squares over moments, points, hands and demos.

    Attributes:
        ways: name -> number of demos, in alphabetical order.
        between: of the mean paths of the ways from the mean of all, m.
        within: of the paths from the mean of their way, m.
        explained: share of the variance of the paths that the ways explain, in [0, 1]; if ways were names drawn by
            lot, some (ways - 1) / (demos - 1).
    """

    ways: Mapping[str, int]
    between: float
    within: float
    explained: float


@dataclass(frozen=True, eq=False)
class HandPath:
    """Where the hand of a demonstration goes; of the first arm, where there are several.

    Attributes:
        way: of the demonstration.
        position: (T, 3), m.
        yaw: direction of the hand's x axis seen from above, (T,), rad, without jumps.
    """

    way: str
    position: np.ndarray
    yaw: np.ndarray


def has_ways(path: str | Path) -> bool:
    """Whether the demos of a data set say in which way they were done."""
    with h5py.File(path, "r") as file:
        return all("way" in demo.attrs for demo in file["data"].values())


def hand_paths(path: str | Path, most: int) -> list[HandPath]:
    """The paths of some demos, evenly spread over the data set; see `measure_diversity`."""
    found = []
    with h5py.File(path, "r") as file:
        names = list(file["data"])
        for index in np.unique(np.linspace(0, len(names) - 1, min(most, len(names))).round().astype(int)):
            demo = file["data"][names[index]]
            x_axis = Rotation.from_quat(demo["obs/robot0_eef_quat"][:]).as_matrix()[:, :, 0]
            yaw = np.unwrap(np.arctan2(x_axis[:, 1], x_axis[:, 0]))
            found.append(HandPath(str(demo.attrs["way"]), demo["obs/robot0_eef_pos"][:].astype(np.float64), yaw))
    return found


def measure_diversity(path: str | Path) -> Diversity:
    """Measure a data set whose demos say their `way` and hold `obs/robot{i}_eef_pos` and `obs/robot{i}_eef_quat`."""
    with h5py.File(path, "r") as file:
        demos = [file["data"][name] for name in file["data"]]
        ways = np.array([str(demo.attrs["way"]) for demo in demos])
        paths = np.array([_path(demo["obs"]) for demo in demos])  # (N, D)
    means = {way: paths[ways == way].mean(axis=0) for way in np.unique(ways)}
    way_means = np.array([means[way] for way in ways])
    points = paths.shape[1] / 3
    between = float(((way_means - paths.mean(axis=0)) ** 2).sum() / points / len(paths))
    within = float(((paths - way_means) ** 2).sum() / points / len(paths))
    explained = between / (between + within) if between + within > 0 else 0.0
    return Diversity(dict(sorted(Counter(ways.tolist()).items())), between**0.5, within**0.5, explained)


def _path(observations: h5py.Group) -> np.ndarray:
    """The points of all hands at all moments, (hands * moments * points * 3,)."""
    hands = sorted(name.removesuffix("_eef_pos") for name in observations if name.endswith("_eef_pos"))
    points = []
    for hand in hands:
        position = observations[f"{hand}_eef_pos"][:].astype(np.float64)  # (T, 3)
        moments = np.linspace(0, len(position) - 1, _MOMENTS).round().astype(int)
        axes = Rotation.from_quat(observations[f"{hand}_eef_quat"][:][moments]).as_matrix()[:, :, :2]
        centre = position[moments, :, None]  # (moments, 3, 1)
        points.append(np.concatenate((centre, centre + _LEVER * axes), axis=2))
    return np.concatenate(points).ravel()
