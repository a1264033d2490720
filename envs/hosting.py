"""Several environments in one process, reset and stepped row by row, and the loop of a worker process around them.

Workers start quickly: this file needs gymnasium, numpy and the standard library.
"""

import gc
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection
from typing import Any, Self

import gymnasium
import numpy as np
from gymnasium.spaces import Space

from envs.success import told_success
from envs.worker_process import become_worker, describe

__all__ = ["EnvironmentHost", "HostSpec", "Outcome", "serve"]


@dataclass(frozen=True)
class HostSpec:
    """What an environment presents."""

    observation_space: Space
    action_space: Space
    render_mode: str | None
    render_fps: float | None  # as the environment's metadata name it, like the following
    action_representation: str

    @classmethod
    def of(cls, env: gymnasium.Env) -> Self:
        """Ask the environment."""
        return cls(
            env.observation_space,
            env.action_space,
            env.render_mode,
            env.metadata.get("render_fps"),
            env.metadata.get("action_representation", "as_stored"),
        )

    @cached_property
    def record(self) -> np.dtype:
        """What an environment says after a reset or a step, in one piece of memory; for Dict observations of arrays.

        `observation`, with a field per key; `reward`; `terminated`, `truncated`; `told`: whether its info has
        `is_success`, and `success` what that says; `lost`: it says nothing any more, because its process has died.
        """
        observation = [(key, space.dtype, space.shape) for key, space in self.observation_space.items()]
        flags = [(name, np.bool_) for name in ("terminated", "truncated", "told", "success", "lost")]
        return np.dtype([("observation", observation), ("reward", np.float64), *flags])


@dataclass(frozen=True)
class Outcome:
    """What n environments said; entry i belongs to the i-th row that was asked for.

    Attributes:
        records: (n,) of `HostSpec.record`.
        frames: i -> image (H, W, 3) of those that are filmed.
    """

    records: np.ndarray
    frames: Mapping[int, np.ndarray]


class EnvironmentHost:
    """`num_envs` environments, the rows; a context manager that closes them."""

    def __init__(self, make_env: Callable[[], gymnasium.Env], num_envs: int) -> None:
        """Build the environments.

        Raises:
            ValueError: `make_env` does not build the same every time.
        """
        self._envs: list[gymnasium.Env] = []
        self._filmed = [False] * num_envs
        with ExitStack() as built:  # closes the first ones if a later one fails
            for _ in range(num_envs):
                self._envs.append(make_env())
                built.callback(self._envs[-1].close)
            self.spec = HostSpec.of(self._envs[0])
            for env in self._envs:
                if HostSpec.of(env) != self.spec:
                    raise ValueError(f"make_env must build alike environments, got {self.spec} and {HostSpec.of(env)}")
            self._built = built.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._built.close()

    @property
    def num_envs(self) -> int:
        """Number of rows."""
        return len(self._envs)

    def reset(self, rows: Sequence[int], seeds: Sequence[int], filmed: Sequence[bool]) -> Outcome:
        """Begin an episode in the n `rows`, each with its seed; those `filmed` are rendered now and after every step.

        Rewards and flags of the outcome are zero.

        Raises:
            ValueError: an observation is not what the space says.
        """
        records = np.zeros(len(rows), self.spec.record)
        observations = _fields(records)
        for i, (row, seed, film) in enumerate(zip(rows, seeds, filmed, strict=True)):
            self._filmed[row] = bool(film)
            _write(observations, i, self._envs[row].reset(seed=int(seed))[0])
        return Outcome(records, self._render(rows))

    def step(self, rows: Sequence[int], actions: np.ndarray) -> Outcome:
        """Step the n `rows` with their actions (n, *action shape); other rows stay as they are.

        Raises:
            ValueError: an observation is not what the space says, or `is_success` no bool.
        """
        records = np.zeros(len(rows), self.spec.record)
        observations = _fields(records)
        for i, (row, action) in enumerate(zip(rows, actions, strict=True)):
            observation, reward, terminated, truncated, info = self._envs[row].step(action)
            _write(observations, i, observation)
            record = records[i]
            record["reward"], record["terminated"], record["truncated"] = reward, terminated, truncated
            success = told_success(info)
            record["told"], record["success"] = success is not None, bool(success)
        return Outcome(records, self._render(rows))

    def _render(self, rows: Sequence[int]) -> dict[int, np.ndarray]:
        return {i: np.array(self._envs[row].render()) for i, row in enumerate(rows) if self._filmed[row]}


def serve(connection: Connection, factory: bytes, num_envs: int) -> None:
    """Host `num_envs` environments of the pickled `factory` in this worker process until the parent's pipe closes.

    Every message to the parent is a pair (answer, failure), one of them None: first the `HostSpec`, then for each
    request ("reset" or "step", *arguments) the outcome as (bytes of its records, frames). A failure is what
    `describe` says of an exception; the worker ends after it.
    """
    become_worker()
    try:
        with EnvironmentHost(pickle.loads(factory), num_envs) as host:
            # robosuite collects garbage in every reset: what was imported need not be looked through each time
            gc.collect()
            gc.freeze()
            connection.send((host.spec, None))
            for method, *arguments in _requests(connection):
                outcome = getattr(host, method)(*arguments)
                connection.send(((outcome.records.tobytes(), outcome.frames), None))
    except Exception as error:
        with suppress(OSError):  # nobody listens any more
            connection.send((None, describe(error)))


def _requests(connection: Connection) -> Iterator[tuple[Any, ...]]:
    with suppress(EOFError, ConnectionError):
        while True:
            yield connection.recv()


def _fields(records: np.ndarray) -> dict[str, np.ndarray]:
    """A view (n, ...) for every key of the observation."""
    observation = records["observation"]
    return {key: observation[key] for key in observation.dtype.names or ()}


def _write(observations: Mapping[str, np.ndarray], i: int, observation: Mapping[str, np.ndarray]) -> None:
    for key, values in observations.items():
        if key not in observation:
            raise ValueError(
                f"the environment's observation_space declares {key!r}, and its observation has only "
                f"{', '.join(map(repr, observation))}"
            )
        given, shape = np.asarray(observation[key]), values.shape[1:]
        if _without_ones(given.shape) != _without_ones(shape):  # else numpy would repeat what is missing
            raise ValueError(
                f"the environment's observation {key!r} has shape {given.shape}, and its observation_space declares "
                f"{shape}: make them agree"
            )
        given = given.reshape(shape)
        values[i] = given
        # numpy cuts decimals off, and lets what is too large begin again at 0
        if values.dtype.kind != "f" and given.dtype != values.dtype and not np.array_equal(values[i], given):
            raise ValueError(
                f"the environment's observation {key!r} holds {given[values[i] != given][0]}, and its "
                f"observation_space declares {values.dtype}: make them agree"
            )


def _without_ones(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(size for size in shape if size != 1)
