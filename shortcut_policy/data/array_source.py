"""Where an observation or the action lies in a data set, and which part of it is taken."""

import dataclasses
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np


@dataclass(frozen=True)
class ArraySource:
    """Where one observation (or the action) lies in the data set.

    Attributes:
        array: its name there, which may be a path such as `policy/joint_pos`; empty: the observation's own key.
        columns: half-open range of the last axis, None for all of it.
        transform: `cos_sin` turns every angle (radians) into (cos, sin), next to each other.
    """

    array: str = ""
    columns: tuple[int, int] | None = None
    transform: Literal["none", "cos_sin"] = "none"

    def __post_init__(self):
        of_array = f" of {self.array!r}" if self.array else ""
        if self.columns is not None and not (len(self.columns) == 2 and 0 <= self.columns[0] < self.columns[1]):
            raise ValueError(f"columns{of_array} must be (start, stop) with 0 <= start < stop, not {self.columns}")
        if self.transform not in ("none", "cos_sin"):
            raise ValueError(f"transform{of_array} must be 'none' or 'cos_sin', not {self.transform!r}")

    def named(self, key: str) -> Self:
        """Return the source with `key` for an empty name."""
        return self if self.array else dataclasses.replace(self, array=key)


def extract(values: np.ndarray, source: ArraySource) -> np.ndarray:
    """Cut the columns, transform and flatten: (N, K) or (N, M, K) -> (N, D) float32.

    Raises:
        ValueError: when the columns exceed the last axis.
    """
    if source.columns is not None:
        start, stop = source.columns
        if stop > values.shape[-1]:
            raise ValueError(f"columns {start}:{stop} of {source.array} exceed its last axis of {values.shape[-1]}")
        values = values[..., start:stop]
    if source.transform == "cos_sin":
        values = np.stack([np.cos(values), np.sin(values)], axis=-1)
    width = int(np.prod(values.shape[1:]))  # not -1, which an empty array does not determine
    with np.errstate(over="ignore"):  # infinity, which `Episodes` refuses
        return np.ascontiguousarray(values.reshape(len(values), width), dtype=np.float32)
