"""Symmetries of a task: maps of observations and actions that turn its demonstrations into demonstrations again.

Where the world looks the same in a mirror, so do its demonstrations, and a policy can be trained on both.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.data.episodes import Episodes

__all__ = ["AffineMap", "Symmetry", "with_symmetric_copies"]


@dataclass(frozen=True)
class AffineMap:
    """x (..., D) -> x @ matrix^T + offset.

    Args:
        matrix: D rows of D numbers.
        offset: D numbers; None: zeros.

    Raises:
        ValueError: the matrix is not square or cannot be inverted, or the offset does not fit it.
    """

    matrix: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        width = len(self.matrix)
        if not width or {len(row) for row in self.matrix} != {width} or not np.isfinite(self.matrix).all():
            raise ValueError(f"matrix must have D rows of D finite numbers, got {self.matrix}")
        if np.linalg.matrix_rank(self.matrix) < width:
            raise ValueError(f"a symmetry can be undone, but matrix {self.matrix} cannot be inverted")
        if self.offset is not None and (len(self.offset) != width or not np.isfinite(self.offset).all()):
            raise ValueError(f"offset must have {width} finite numbers, as matrix has rows, got {self.offset}")

    def __call__(self, values: np.ndarray) -> np.ndarray:
        """Map (N, D) float32, computed in float64.

        Raises:
            ValueError: the rows have another width.
        """
        if values.shape[1:] != (len(self.matrix),):
            raise ValueError(f"matrix has {len(self.matrix)} rows, but the data have shape {values.shape}")
        offset = np.zeros(len(self.matrix)) if self.offset is None else np.array(self.offset)
        return (values.astype(np.float64) @ np.array(self.matrix).T + offset).astype(np.float32)


@dataclass(frozen=True)
class Symmetry:
    """One map of everything that a policy observes and does.

    Args:
        name: for tables, such as "mirror".
        observations: the map of each.
        action: the map of actions as they are stored.
    """

    name: str
    observations: Mapping[str, AffineMap]
    action: AffineMap

    def __call__(self, episodes: Episodes) -> Episodes:
        """The demonstrations as this symmetry shows them.

        Raises:
            ValueError: an observation is an image or has no map, a map has no observation, widths differ, or the
                actions are encoded.
        """
        if episodes.action_codec != ActionCodec():
            raise ValueError(f"the symmetry {self.name!r} maps actions as they are stored, not {episodes.action_codec}")
        for key in episodes.image_shapes:
            raise ValueError(
                f"the symmetry {self.name!r} cannot map images such as {key!r}: leave the symmetry out, or the "
                "observations that are images"
            )
        for key in sorted(episodes.observations.keys() ^ self.observations.keys()):
            there = "maps" if key in self.observations else "does not map"
            raise ValueError(
                f"the symmetry {self.name!r} {there} {key!r}: it must map the observations that are read, which are "
                f"{', '.join(episodes.observations)}"
            )
        mapped = {key: self._map(key, self.observations[key], values) for key, values in episodes.observations.items()}
        actions = self._map("the action", self.action, episodes.actions)
        return dataclasses.replace(episodes, observations=mapped, actions=actions)

    def _map(self, name: str, mapping: AffineMap, values: np.ndarray) -> np.ndarray:
        try:
            return mapping(values)
        except ValueError as error:
            raise ValueError(f"the symmetry {self.name!r}, {name}: {error}") from None


def with_symmetric_copies(episodes: Episodes, symmetries: Sequence[Symmetry]) -> Episodes:
    """The demonstrations, and behind them what each symmetry makes of them: products of symmetries are not formed.

    Raises:
        ValueError: a symmetry does not fit the data.
    """
    parts = [episodes, *(symmetry(episodes) for symmetry in symmetries)]
    if len(parts) == 1:
        return episodes
    names = None
    if episodes.names is not None:
        ways = ["", *(f", {symmetry.name}" for symmetry in symmetries)]
        names = tuple(f"{name}{way}" for way in ways for name in episodes.names)
    return dataclasses.replace(
        episodes,
        observations={key: np.concatenate([part.observations[key] for part in parts]) for key in episodes.observations},
        actions=np.concatenate([part.actions for part in parts]),
        episode_ends=np.concatenate([part.episode_ends + i * part.num_steps for i, part in enumerate(parts)]),
        names=names,
    )
