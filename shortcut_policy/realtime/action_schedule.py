"""Which action a tick gets from the chunks that are there: receding horizon, or temporal ensembling.

A tick is a number of control periods. A chunk carries the tick of the observation that it was computed from, which its
first action is for; when it arrives some ticks later, its first actions are stale, and are never given out.

    tick               0 1 2 3 4 5 6 7 8
    chunk of tick 0    A A A A A A
    chunk of tick 3          s A A A A A        arrives at tick 4: one stale action (s)
    given out          0 0 0 0 3 3 3 3 3 -      the number of the chunk; nothing past the end
"""

import math
from bisect import insort

import numpy as np

from shortcut_policy.data.action_codec import ActionCodec

__all__ = ["ActionSchedule"]


class ActionSchedule:
    """Chunks of one robot, and the action that they give for a tick; knows neither clock nor threads.

    Without ensembling the newest chunk that reaches a tick decides. With it, all n chunks that reach the tick are
    averaged with the weights w_i = exp(-m i), i = 0 for the oldest (ACT, Zhao et al., arXiv 2304.13705, section
    IV-B), normalised to a sum of 1: the smaller m, the more a new chunk counts.

    Args:
        ensembling: m (ACT's code has 0.01); None for receding horizon.
        codec: what the actions mean. Absolute poses are averaged in the form in which the network sees them (rot6d),
            because rotation vectors jump where the angle passes pi; by default the numbers are averaged as they are.

    Raises:
        ValueError: m is not finite.
    """

    def __init__(self, ensembling: float | None = None, codec: ActionCodec | None = None) -> None:
        if ensembling is not None and not math.isfinite(ensembling):
            raise ValueError(f"ensembling={ensembling} weighs nothing: give a finite m, such as 0.01, or None")
        self._m = ensembling
        self._codec = codec or ActionCodec()
        self._chunks: list[tuple[int, np.ndarray]] = []  # (tick, (T, A)) by tick

    def add(self, tick: int, chunk: np.ndarray) -> None:
        """Take a chunk (T, A) that was computed from the observation of `tick`, in place of any other of that tick.

        From now on, only the actions of ticks from the newest chunk's on are asked for: chunks that can have no part in
        these are forgotten.
        """
        self._chunks = [old for old in self._chunks if old[0] != tick]
        insort(self._chunks, (tick, chunk), key=lambda timed: timed[0])
        newest, newest_chunk = self._chunks[-1]
        # who decides alone needs no older ones as long as it lasts; of an average all are part that reach this far
        reach = newest + (len(newest_chunk) if self._m is None else 0)
        self._chunks = [(t, c) for t, c in self._chunks if t == newest or t + len(c) > reach]

    def action(self, tick: int) -> np.ndarray | None:
        """The action (A,) for a tick; None where no chunk reaches it. One may look ahead: nothing is used up."""
        reaching = [chunk[tick - begin] for begin, chunk in self._chunks if begin <= tick < begin + len(chunk)]
        if not reaching:
            return None
        if self._m is None or len(reaching) == 1:
            return reaching[-1]
        weights = np.exp(-self._m * np.arange(len(reaching)))  # (n,)
        encoded = self._codec.encode(np.stack(reaching))  # (n, D)
        return self._codec.decode((weights / weights.sum()).astype(encoded.dtype) @ encoded)

    def committed(self, tick: int, count: int) -> np.ndarray | None:
        """The actions (k, A) for `count` ticks from `tick` on, fewer where the chunks end before; None for none."""
        ahead = [self.action(later) for later in range(tick, tick + count)]
        actions = [action for action in ahead if action is not None]  # only the last ones can be None
        return np.stack(actions) if actions else None

    def clear(self) -> None:
        """Forget all chunks."""
        self._chunks = []
