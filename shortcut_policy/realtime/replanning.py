"""When a new chunk is wanted, when it is asked for, and when it is late."""

__all__ = ["Replanning"]


class Replanning:
    """Keeps the appointments of a robot with its policy, in ticks; one request at a time.

    A chunk is wanted `every` ticks after the observation of the last one. It is asked for at once, or, where the last
    answer is still awaited, as soon as that is there. Whether it was late is told once.

    Args:
        every: ticks from one observation to the next that a chunk is computed from.
        due_after: ticks from when a chunk is wanted to when it must be there.
    """

    def __init__(self, every: int, due_after: int = 0) -> None:
        self._every = every
        self._due_after = due_after
        self._wanted = 0  # since when the present chunk is wanted
        self._asked: int | None = None  # when it was asked for
        self._late = False  # whether its lateness was told

    def asks(self, tick: int) -> bool:
        """Whether to ask for a chunk now; if so, it is taken as asked for."""
        if self._asked is not None or tick < self._wanted:
            return False
        self._asked = tick
        return True

    def answered(self) -> None:
        """The chunk is there."""
        assert self._asked is not None
        self._wanted = self._asked + self._every
        self._asked, self._late = None, False

    def refused(self) -> None:
        """What came is of no use: a chunk is as much wanted as before."""
        self._asked = None

    def is_late(self, tick: int) -> bool:
        """Whether the chunk that is wanted should be there by now and is not; true once for each."""
        if self._late or tick < self._wanted + self._due_after:
            return False
        self._late = True
        return True
