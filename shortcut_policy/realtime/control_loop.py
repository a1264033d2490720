"""A control loop that keeps a clock: actions at a fixed rate, whatever the policy does.

    tick k, at start + k / rate:  observe -> take the chunk that has arrived -> ask for the next one -> act

The loop never waits for the policy, except for the first chunk, before the clock starts: a robot at rest loses nothing
by that. A chunk that comes late finds the loop on the old one; past the end of that, the robot gets its safe action.
"""

import math
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Literal, Protocol

import numpy as np

from shortcut_policy.realtime.action_schedule import ActionSchedule
from shortcut_policy.realtime.clock import Clock, MonotonicClock
from shortcut_policy.realtime.loop_config import LoopConfig
from shortcut_policy.realtime.loop_report import DurationLog, LoopReport
from shortcut_policy.realtime.replanning import Replanning
from shortcut_policy.realtime.safety import ActionGuard
from shortcut_policy.realtime.sampling import Answer, SampleChunk, Sampler, ThreadSampler
from shortcut_policy.realtime.stopping import interrupts_remembered

__all__ = ["ControlLoop", "LoopConfig", "Robot"]


class Robot(Protocol):
    """What the loop moves; both calls should take a small part of a period."""

    def observe(self) -> Mapping[str, np.ndarray]:
        """The newest observation {key: (*shape)}; the arrays may be written over later."""
        ...

    def act(self, action: np.ndarray) -> None:
        """Execute an action (A,) until the next one comes."""
        ...


class ControlLoop:
    """Runs a policy on a robot.

    Args:
        robot: is called in the thread of `run`.
        sample: computes chunks; `chunk_function` makes it of a policy.
        config: see `LoopConfig`.
        clock: the system's by default.
        make_sampler: what calls `sample` beside the loop; by default, a thread.
    """

    def __init__(
        self,
        robot: Robot,
        sample: SampleChunk,
        config: LoopConfig,
        clock: Clock | None = None,
        make_sampler: Callable[[SampleChunk, Clock], Sampler] = ThreadSampler,
    ) -> None:
        self._robot = robot
        self._sample = sample
        self._config = config
        self._clock = clock or MonotonicClock()
        self._make_sampler = make_sampler
        self._begin()

    def run(self, ticks: int | None = None, stop: threading.Event | None = None) -> LoopReport:
        """Run until all ticks are made, `stop` is set, or SIGINT (Ctrl-C) or SIGTERM comes; the last action is safe.

        Args:
            ticks: how many; None for no end.
            stop: looked at in every tick.

        Raises:
            ValueError: `ticks` is not positive; the policy's chunks do not fit the configuration.
            Exception: whatever the policy or the robot raised, after the safe action; `report` still tells of the run.
        """
        if ticks is not None and ticks < 1:
            raise ValueError(f"ticks={ticks} leave nothing to do: give at least 1, or None for no end")
        self._begin()
        sampler = self._make_sampler(self._sample, self._clock)
        try:
            self._observe()
            self._take_first(sampler)
            with interrupts_remembered() as interrupted:
                try:
                    self._ended = self._run(sampler, ticks, stop or threading.Event(), interrupted)
                except BaseException as error:
                    self._ended = "failed"
                    self._end_safely(error)
                    raise
                self._end_safely()
        finally:
            sampler.close()
        return self.report()

    def report(self) -> LoopReport:
        """The run so far, or the last one; may be asked for at any time, in any thread."""
        seconds = self._seconds
        return LoopReport(
            ticks=self._ticks,
            skipped_ticks=self._skipped,
            seconds=seconds,
            rate_hz=(self._ticks - 1) / seconds if seconds > 0 and self._ticks > 1 else None,
            jitter_ms=self._jitter.quantiles(),
            latency_ms=self._latency.quantiles(),
            chunks=self._chunks,
            misses=self._misses,
            refused_chunks=self._refused,
            stale_actions=self._stale,
            safe_actions=self._guard.safe,
            clipped_actions=self._guard.clipped,
            ended=self._ended,
        )

    def _begin(self) -> None:
        """Forget the last run."""
        config = self._config
        self._schedule = ActionSchedule(config.ensembling, config.action_codec)
        self._replanning = Replanning(config.action_steps, config.deadline_ticks)
        self._guard = ActionGuard(config.safety)
        self._history: deque[dict[str, np.ndarray]] = deque(maxlen=config.observation_steps)
        self._jitter, self._latency = DurationLog(), DurationLog()
        self._ticks = self._skipped = self._chunks = self._misses = self._refused = self._stale = 0
        self._seconds = 0.0
        self._width = 0
        self._ended: Literal["complete", "stopped", "interrupted", "failed"] | None = None

    def _run(
        self, sampler: Sampler, ticks: int | None, stop: threading.Event, interrupted: threading.Event
    ) -> Literal["complete", "stopped", "interrupted"]:
        period = 1 / self._config.rate_hz
        start = self._clock.now()
        tick = 0
        while ticks is None or tick < ticks:
            self._clock.sleep_until(start + tick * period)  # from the start on: what one tick loses, no other inherits
            if interrupted.is_set():
                return "interrupted"
            if stop.is_set():
                return "stopped"
            if tick:  # the first one was observed before the clock started
                self._observe()
                self._replan(sampler, tick)
            action = self._guard.admit(self._schedule.action(tick))
            assert action is not None  # the first chunk began with a finite one
            moment = self._clock.now()
            self._jitter.add(moment - start - tick * period)
            self._robot.act(action)
            self._ticks += 1
            self._seconds = moment - start
            passed = math.floor((self._clock.now() - start) * self._config.rate_hz)
            following = max(tick + 1, passed)  # a tick that is late by less than a period is made at once
            following = following if ticks is None else min(following, ticks)
            self._skipped += following - tick - 1
            tick = following
        return "complete"

    def _observe(self) -> None:
        observation = {key: np.array(value) for key, value in self._robot.observe().items()}
        self._history.extend([observation] * (1 if self._history else self._config.observation_steps))

    def _stacked(self) -> dict[str, np.ndarray]:
        """{key: (To, *shape)}."""
        return {key: np.stack([one[key] for one in self._history]) for key in self._history[-1]}

    def _take_first(self, sampler: Sampler) -> None:
        """Warm up, and have the first chunk."""
        history = self._stacked()
        for _ in range(self._config.warm_up + 1):
            sampler.request(0, history)
            chunk = _chunk_of(sampler.wait())
        if chunk.ndim != 2:
            raise ValueError(f"the policy's chunk has shape {chunk.shape}: the loop needs (T, A)")
        config, (length, self._width) = self._config, chunk.shape
        config.safety.check_width(self._width)
        if length < config.action_steps + config.deadline_ticks:
            raise ValueError(
                f"a chunk of {length} actions ends before the next one is due, action_steps={config.action_steps} + "
                f"deadline_ticks={config.deadline_ticks} later: make these smaller"
            )
        if not np.isfinite(chunk).all():
            raise ValueError("the policy's first chunk contains NaN or infinity: nothing was executed")
        self._replanning.asks(0)
        self._replanning.answered()
        self._schedule.add(0, chunk)

    def _replan(self, sampler: Sampler, tick: int) -> None:
        answer = sampler.poll()
        if answer is not None:
            self._take(answer, tick)
        self._misses += self._replanning.is_late(tick)
        if self._replanning.asks(tick):
            sampler.request(tick, self._stacked(), self._committed(tick))

    def _committed(self, tick: int) -> np.ndarray | None:
        """The actions (k, A) that the robot will get from `tick` on until the next chunk is expected; None for none."""
        committed = self._schedule.committed(tick, self._config.prefix_ticks)
        return None if committed is None else self._guard.within(committed)

    def _take(self, answer: Answer, tick: int) -> None:
        chunk = _chunk_of(answer)
        self._latency.add(answer.latency)
        if chunk.ndim != 2 or chunk.shape[1] != self._width or not np.isfinite(chunk).all():
            self._refused += 1
            self._replanning.refused()
            return
        self._chunks += 1
        self._stale += min(tick - answer.tick, len(chunk))
        self._replanning.answered()
        self._schedule.add(answer.tick, chunk)

    def _end_safely(self, error: BaseException | None = None) -> None:
        """Leave the robot with its safe action, whatever happened before."""
        counted = self._guard.safe
        action = self._guard.safe_action()
        self._guard.safe = counted
        if action is None:
            return
        try:
            self._robot.act(action)
        except Exception as second:
            if error is None:
                raise
            error.add_note(f"the robot did not take its safe action either: {second!r}")


def _chunk_of(answer: Answer) -> np.ndarray:
    """(T, A) of an answer, or its error."""
    if answer.error is not None:
        raise answer.error
    assert answer.chunk is not None
    return answer.chunk.astype(np.result_type(answer.chunk, np.float32), copy=False)
