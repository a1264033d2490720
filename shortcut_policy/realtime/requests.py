"""What a client may ask, checked before it meets the requests of others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

RESERVED = ("reset", "seed", "committed")
"""Keys of a request that are no observations."""


@dataclass(frozen=True)
class RequestSpec:
    """What a policy takes.

    Args:
        shapes: of one observation of every key, (D,) for numbers, (H, W, C) for images.
        steps: To, observations per decision.
        images: keys of the images, which are uint8; all others are numbers, float32 in the end.
        prefix_steps: P, the most committed actions that it can continue.
        action_dim: E, width of the data set's actions.

    Raises:
        ValueError: a key has a meaning of its own in requests.
    """

    shapes: Mapping[str, tuple[int, ...]]
    steps: int
    images: frozenset[str] = frozenset()
    prefix_steps: int = 0
    action_dim: int = 0

    def __post_init__(self) -> None:
        for key in RESERVED:
            if key in self.shapes:
                raise ValueError(f"a policy with an observation {key!r} cannot be served: requests use that key")


@dataclass(frozen=True)
class Request:
    """A request that is known to fit.

    Attributes:
        observation: float32, or uint8 for images, {key: shape} or, where it is whole, {key: (To, *shape)}; empty in a
            request that only resets.
        whole: whether it holds the last To observations, oldest first, and not only the newest one.
        committed: float32 (k, E), 1 <= k <= P: what the robot will have done from now on until it has the answer, which
            shall begin with it; None for nothing.
        reset: whether an episode begins with it.
        seed: of the episode's noise, in a request that resets.
    """

    observation: Mapping[str, np.ndarray]
    whole: bool = False
    committed: np.ndarray | None = None
    reset: bool = False
    seed: int | None = None


def parse_request(message: Any, spec: RequestSpec) -> Request:
    """Check a message, as it was read from the wire, against what the policy takes.

    Raises:
        ValueError: one sentence that quotes the first thing that is wrong.
    """
    if not isinstance(message, dict):
        raise ValueError(f"a request must be a map from names to arrays, got {type(message).__name__}")
    reset, seed = message.get("reset", False), message.get("seed")
    if not isinstance(reset, bool):
        raise ValueError(f"reset must be true or false, got {_short(reset)}")
    if seed is not None and not (reset and type(seed) is int and 0 <= seed < 2**63):
        raise ValueError(f"seed must be a number in [0, 2**63) beside reset=true, got {_short(seed)}")
    values = {key: value for key, value in message.items() if key not in RESERVED}
    if reset and not values and "committed" not in message:
        return Request({}, reset=True, seed=seed)

    known = ", ".join(spec.shapes)
    for key in values:
        if key not in spec.shapes:
            raise ValueError(f"observation {_short(key)} is not one of the policy's: it takes {known}")
    for key in spec.shapes:
        if key not in values:
            raise ValueError(f"observation {key!r} is missing: the policy takes {known}")
    first = next(iter(spec.shapes))
    whole = np.ndim(values[first]) > len(spec.shapes[first])
    observation = {key: _checked(key, values[key], spec, whole) for key in spec.shapes}
    committed = _committed(message["committed"], spec) if "committed" in message else None
    return Request(observation, whole, committed, reset, seed)


def _checked(key: str, value: Any, spec: RequestSpec, whole: bool) -> np.ndarray:
    name = f"observation {key!r}"
    _require_array(name, value)
    newest, history = spec.shapes[key], (spec.steps, *spec.shapes[key])
    if value.shape != (history if whole else newest):
        one = f"{newest} (the newest) or {history} (the last {spec.steps}, oldest first)"
        raise ValueError(f"{name} must have shape {one}, as all others in the request, got {value.shape}")
    if key in spec.images:
        if value.dtype != np.uint8:
            raise ValueError(f"image {key!r} must be uint8 in 0 ... 255, got {value.dtype}")
        return np.asarray(value)
    return _numbers(name, value)


def _committed(value: Any, spec: RequestSpec) -> np.ndarray:
    if not spec.prefix_steps:
        raise ValueError("committed actions cannot be continued: the policy was trained with prefix_steps=0")
    _require_array("committed", value)
    if value.ndim != 2 or not 1 <= len(value) <= spec.prefix_steps or value.shape[1] != spec.action_dim:
        raise ValueError(
            f"committed must have shape (k, {spec.action_dim}) with k from 1 to prefix_steps={spec.prefix_steps}, "
            f"got {value.shape}"
        )
    return _numbers("committed", value)


def _require_array(name: str, value: Any) -> None:
    if not isinstance(value, np.ndarray | np.generic):
        raise ValueError(f"{name} must be a numpy array, got {type(value).__name__}")


def _numbers(name: str, value: np.ndarray | np.generic) -> np.ndarray:
    """As float32, if all are finite."""
    with np.errstate(over="ignore"):  # what becomes infinite is refused in the next line
        array = np.asarray(value).astype(np.float32)
    if not np.isfinite(array).all():
        index = tuple(map(int, np.argwhere(~np.isfinite(array))[0]))
        raise ValueError(f"{name} must be finite, got {float(np.asarray(value)[index])} at {index}")
    return array


def _short(value: Any) -> str:
    return repr(value)[:80]
