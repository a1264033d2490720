"""Demonstrations in RAM: whole episodes stored one after the other, as Diffusion Policy's replay buffer keeps them."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from shortcut_policy.data.action_codec import ActionCodec

IMAGE_CHANNELS = (1, 3, 4)
"""What the last axis of an image may have: gray, color, or color with depth or opacity."""


def check_episode_ends(episode_ends: np.ndarray) -> None:
    """Raise ValueError unless `episode_ends` is a non-empty (E,) integer array that rises strictly from above 0."""
    ends = np.asarray(episode_ends)
    if ends.ndim != 1 or not np.issubdtype(ends.dtype, np.integer):
        raise ValueError(f"episode_ends must be a 1-D integer array, not {ends.dtype} of shape {ends.shape}")
    if len(ends) == 0:
        raise ValueError("episode_ends is empty: at least one episode is needed")
    if ends[0] <= 0:
        raise ValueError(f"episode_ends must start above 0, but episode 0 ends at {ends[0]}")
    falls = np.flatnonzero(ends[1:] <= ends[:-1])
    if len(falls):
        first = falls[0]
        raise ValueError(
            f"episode_ends must rise strictly, but episode {first} ends at {ends[first]} "
            f"and episode {first + 1} at {ends[first + 1]}"
        )


@dataclass(frozen=True, eq=False)
class Episodes:
    """Demonstrations in RAM, one after the other; every value is finite.

    Attributes:
        observations: key -> (N, *shape), float32 (low-dim) or uint8 (images).
        actions: (N, A) float32, as `action_codec` encodes them; row n is the action taken at observation n.
        episode_ends: (E,) int64, exclusive end of each episode, strictly rising, the last one is N.
        source: where the demonstrations came from, for messages.
        names: of the episodes in the data set, where they have any.
        action_codec: what the actions mean, and how they are encoded.

    Raises:
        ValueError: when shapes, types or ends disagree, or a value is NaN or infinite.
    """

    observations: Mapping[str, np.ndarray]
    actions: np.ndarray
    episode_ends: np.ndarray
    source: str
    names: tuple[str, ...] | None = None
    action_codec: ActionCodec = field(default_factory=ActionCodec)

    def __post_init__(self):
        try:
            self._validate()
        except ValueError as error:
            raise ValueError(f"{error} (in {self.source})") from None

    def _validate(self) -> None:
        check_episode_ends(self.episode_ends)
        if self.episode_ends.dtype != np.int64:
            raise ValueError(f"episode_ends must be int64, not {self.episode_ends.dtype}")
        if self.actions.ndim != 2 or self.actions.dtype != np.float32:
            raise ValueError(f"actions must be float32 (N, A), not {self.actions.dtype} of shape {self.actions.shape}")
        if self.num_steps != self.episode_ends[-1]:
            raise ValueError(
                f"the last episode ends at {self.episode_ends[-1]}, but there are {self.num_steps} actions"
            )
        if self.names is not None and len(self.names) != self.num_episodes:
            raise ValueError(f"there are {len(self.names)} names, but {self.num_episodes} episodes")
        for key, values in self.observations.items():
            if values.ndim < 2 or values.dtype not in (np.float32, np.uint8):
                raise ValueError(
                    f"observation {key!r} must be float32 or uint8 (N, ...), not {values.dtype} of shape {values.shape}"
                )
            if len(values) != self.num_steps:
                raise ValueError(f"observation {key!r} has {len(values)} rows, but there are {self.num_steps} actions")
            self._check_finite(f"observation {key!r}", values)
        self._check_finite("actions", self.actions)

    def _check_finite(self, name: str, values: np.ndarray) -> None:
        if values.dtype == np.uint8:
            return
        finite = np.isfinite(values).all(axis=tuple(range(1, values.ndim)))  # (N,)
        if not finite.all():
            step = int(finite.argmin())
            episode = int(np.searchsorted(self.episode_ends, step, side="right"))
            raise ValueError(
                f"{name}: NaN or infinity at step {step}, which is step {step - self.episode_starts[episode]} "
                f"of {self.names[episode] if self.names else f'episode {episode}'}: repair or remove that episode"
            )

    @property
    def num_steps(self) -> int:
        """N, the steps of all episodes together."""
        return len(self.actions)

    @property
    def num_episodes(self) -> int:
        """E."""
        return len(self.episode_ends)

    @property
    def episode_starts(self) -> np.ndarray:
        """(E,) int64, first row of each episode."""
        return np.concatenate([[0], self.episode_ends[:-1]])

    @property
    def lengths(self) -> np.ndarray:
        """(E,) int64, steps of each episode."""
        return self.episode_ends - self.episode_starts

    @property
    def low_dim(self) -> dict[str, np.ndarray]:
        """The observations that are numbers: key -> (N, D) float32."""
        return {key: values for key, values in self.observations.items() if values.dtype == np.float32}

    @property
    def image_shapes(self) -> dict[str, tuple[int, ...]]:
        """(H, W, C) of the observations that are images."""
        return {key: values.shape[1:] for key, values in self.observations.items() if values.dtype == np.uint8}

    def select(self, episode_indices: Sequence[int] | np.ndarray) -> "Episodes":
        """Copy the episodes named, in the order given; an episode may be named more than once.

        Raises:
            ValueError: when no episode is named or an index lies outside 0 ... E - 1.
        """
        indices = np.asarray(episode_indices)
        if indices.ndim != 1 or len(indices) == 0 or not np.issubdtype(indices.dtype, np.integer):
            raise ValueError(f"episode_indices must be a non-empty 1-D list of integers, not {episode_indices!r}")
        outside = indices[(indices < 0) | (indices >= self.num_episodes)]
        if len(outside):
            raise ValueError(f"episode index {outside[0]} lies outside 0 ... {self.num_episodes - 1} of {self.source}")
        lengths = self.lengths[indices]
        ends = np.cumsum(lengths)
        shift = self.episode_starts[indices] - (ends - lengths)  # old row minus new row, per episode
        rows = np.arange(ends[-1]) + np.repeat(shift, lengths)
        return Episodes(
            observations={key: values[rows] for key, values in self.observations.items()},
            actions=self.actions[rows],
            episode_ends=ends,
            source=self.source,
            names=None if self.names is None else tuple(self.names[index] for index in indices),
            action_codec=self.action_codec,
        )

    def encoded(self, codec: ActionCodec) -> "Episodes":
        """The same episodes, whose actions (N, E) stand as they were stored, with encoded actions.

        Raises:
            ValueError: the width of the actions does not fit, or they are encoded already.
        """
        if self.action_codec != ActionCodec():
            raise ValueError(f"the actions of {self.source} are encoded already, as {self.action_codec}")
        actions = codec.encode(self.actions.astype(np.float64)).astype(np.float32)
        return dataclasses.replace(self, actions=actions, action_codec=codec)

    def split(self, valid_fraction: float, seed: int) -> "tuple[Episodes, Episodes | None]":
        """Split into training and validation parts by whole episode, each part in the original order.

        Args:
            valid_fraction: share of the episodes held out, in [0, 1), rounded to whole episodes but leaving
                at least one on either side; 0 holds out none.
            seed: of the permutation that chooses them.

        Returns:
            The training part and the validation part, which is None for `valid_fraction` 0.

        Raises:
            ValueError: when the fraction is outside [0, 1), or there is only one episode to split.
        """
        if not 0 <= valid_fraction < 1:
            raise ValueError(f"valid_fraction must lie in [0, 1), not {valid_fraction}")
        if valid_fraction == 0:
            return self, None
        if self.num_episodes < 2:
            raise ValueError(
                f"valid_fraction {valid_fraction} needs at least 2 episodes, but {self.source} has 1: set it to 0"
            )
        num_valid = min(max(round(valid_fraction * self.num_episodes), 1), self.num_episodes - 1)
        order = np.random.default_rng(seed).permutation(self.num_episodes)
        return self.select(np.sort(order[num_valid:])), self.select(np.sort(order[:num_valid]))
