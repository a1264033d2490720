"""Which rows make up each training window: a pure function of the episode ends.

The window of step i ("now", the newest observation), for observation_steps To = 2 and horizon Tp = 8:

    step                     i-1   i  i+1  i+2  i+3  i+4  i+5  i+6  i+7
    observations              o    o
    actions, offset 0              a    a    a    a    a    a    a    a      our default: chunk[:, 0] is for now
    actions, offset -(To-1)   a    a    a    a    a    a    a    a           Diffusion Policy: To - 1 past actions first

At the edges of an episode (start ... end-1) rows repeat, and an action that only repeats is marked as padding:

    now = start              start   start  start+1  start+2 ...             observation before the start: repeats it
    now = end-1              ...  end-2  end-1  end-1  end-1 ...             actions after the end: repeat the last
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shortcut_policy.data.episodes import check_episode_ends


@dataclass(frozen=True, eq=False)
class Windows:
    """Rows of W windows, ordered by their newest observation.

    Attributes:
        observation_index: (W, To) int64, row of each observation, oldest first, newest last.
        action_index: (W, Tp) int64, row of each action of the chunk.
        action_is_pad: (W, Tp) bool, True where the action repeats one at the episode's edge.
    """

    observation_index: np.ndarray
    action_index: np.ndarray
    action_is_pad: np.ndarray

    def __len__(self) -> int:
        return len(self.action_index)


def make_windows(
    episode_ends: np.ndarray | Sequence[int],
    *,
    observation_steps: int,
    horizon: int,
    action_offset: int = 0,
    pad_before: int | None = None,
    pad_after: int | None = None,
) -> Windows:
    """Lay one window over every step of every episode that has enough real steps around it.

    Args:
        episode_ends: (E,) exclusive end of each episode, strictly rising.
        observation_steps: To >= 1, observations per window.
        horizon: Tp >= 1, actions per window.
        action_offset: step of the first action relative to now, at least -(To - 1); 0 makes the chunk start with the
            action for the newest observation, -(To - 1) is Diffusion Policy's alignment.
        pad_before: how many observations may be padded at the start of an episode, 0 ... To - 1 (default To - 1:
            every start is used).
        pad_after: how many actions may be padded at the end of an episode, 0 ... Tp - 1 (default Tp - 1: every chunk
            that holds a real action is used; Diffusion Policy allows one less than the actions it executes).

    Raises:
        ValueError: when an argument is out of its range, or no episode is long enough for a window.
    """
    ends = np.asarray(episode_ends)
    check_episode_ends(ends)
    ends = ends.astype(np.int64)
    _check_at_least("observation_steps", observation_steps, 1)
    _check_at_least("horizon", horizon, 1)
    _check_at_least("action_offset", action_offset, 1 - observation_steps)
    pad_before = observation_steps - 1 if pad_before is None else pad_before
    pad_after = horizon - 1 if pad_after is None else pad_after
    _check_at_least("pad_before", pad_before, 0, at_most=observation_steps - 1)
    _check_at_least("pad_after", pad_after, 0, at_most=horizon - 1)

    lengths = np.diff(ends, prepend=0)
    # Now runs, in steps from the start of its episode, over first ... last: all observations but pad_before and all
    # actions but pad_after are then real.
    first = observation_steps - 1 - pad_before
    last = np.minimum(lengths - 1, lengths - 1 + pad_after - (action_offset + horizon - 1))  # (E,)
    counts = np.maximum(last - first + 1, 0)
    if not counts.any():
        raise ValueError(
            f"no window fits: the longest of {len(ends)} episodes has {lengths.max()} steps, too few for "
            f"observation_steps {observation_steps} and horizon {horizon} at action_offset {action_offset} "
            f"with pad_before {pad_before} and pad_after {pad_after}: "
            f"shorten the horizon or allow more padding"
        )

    start = np.repeat(ends - lengths, counts)[:, None]  # (W, 1)
    end = np.repeat(ends, counts)[:, None]  # (W, 1)
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)  # window number in its episode
    now = start + first + within[:, None]  # (W, 1)
    observation = now + np.arange(1 - observation_steps, 1)  # (W, To)
    action = now + action_offset + np.arange(horizon)  # (W, Tp)
    return Windows(
        observation_index=np.clip(observation, start, end - 1),
        action_index=np.clip(action, start, end - 1),
        action_is_pad=(action < start) | (action >= end),
    )


def _check_at_least(name: str, value: int, at_least: int, at_most: int | None = None) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be an integer, not {value!r}")
    if value < at_least or (at_most is not None and value > at_most):
        bounds = f"at least {at_least}" if at_most is None else f"between {at_least} and {at_most}"
        raise ValueError(f"{name} must be {bounds}, not {value}")
