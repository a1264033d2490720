"""Reads a checkpoint of the paper's code (github.com/kvfrans/shortcut-models) without executing what is in it.

It is a pickle `{"train_state": {"params", "params_ema", "opt_state", "step"}, ...}` of numpy arrays inside containers
of flax, optax and jax, none of which has to be installed.
"""

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np


@dataclass(frozen=True)
class OfficialCheckpoint:
    """What a checkpoint holds, but for the state of the optimizer.

    Attributes:
        params, params_ema: "DiTBlock_0/Dense_0/kernel" -> array; the weights and their average.
        step: number of updates.
    """

    params: Mapping[str, np.ndarray]
    params_ema: Mapping[str, np.ndarray]
    step: int


def read_official_checkpoint(path: str | Path) -> OfficialCheckpoint:
    """Read the file.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, holds something else, or would call anything but the few constructors of arrays.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no checkpoint at {path}: checkpoint= must be a file of the official code")
    with open(path, "rb") as file:
        try:
            content = _ArraysOnly(file).load()
        except pickle.UnpicklingError as error:
            raise ValueError(f"{path}: {error}") from error
        except Exception as error:  # a damaged pickle can raise anything
            raise ValueError(f"{path} is no pickle that can be read ({error}): download it again") from error
    try:
        state = content["train_state"]
        return OfficialCheckpoint(_flat(state["params"]), _flat(state["params_ema"]), int(state["step"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no checkpoint of the official code ({error!r}): it must hold train_state with params, "
            "params_ema and step"
        ) from error


class _Container(tuple):
    """Stands for any of optax's named tuples, whose values nobody here looks at."""

    def __new__(cls, *values: Any) -> "_Container":
        return super().__new__(cls, values)


def _jax_array(make: Any, arguments: tuple[Any, ...], state: Any, _: Any) -> np.ndarray:
    """What jax's own function of this purpose does, without jax: `make` is a global that was let through as well."""
    array = make(*arguments)
    array.__setstate__(state)
    return array


def _numpy_globals() -> dict[tuple[str, str], Any]:
    """The constructors of arrays, under the names of numpy 1 and 2."""
    found: dict[tuple[str, str], Any] = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
    makers = {"_reconstruct": np.zeros(0).__reduce__()[0], "scalar": np.float32(0).__reduce__()[0]}
    for package in ("numpy.core", "numpy._core"):
        found |= {(f"{package}.multiarray", name): make for name, make in makers.items()}
    return found


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that knows arrays and the containers they lie in, and refuses everything else."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._known = _numpy_globals() | {
            ("jax._src.array", "_reconstruct_array"): _jax_array,
            ("optax._src.transform", "ScaleByAdamState"): _Container,
            ("optax._src.transform", "ScaleByScheduleState"): _Container,
            ("optax._src.base", "EmptyState"): _Container,
        }

    def find_class(self, module: str, name: str) -> Any:
        """One of the known globals."""
        try:
            return self._known[module, name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"the pickle asks for {module}.{name}, which no checkpoint of the official code needs: it was not "
                "loaded, do not trust the file"
            ) from None

    def persistent_load(self, pid: Any) -> Any:
        """There are no external objects."""
        raise pickle.UnpicklingError(f"the pickle refers to an external object {pid!r}")


def _flat(tree: Mapping[str, Any], prefix: str = "") -> dict[str, np.ndarray]:
    """Nested dictionaries of arrays, with paths as names."""
    flat: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{name}/"))
        else:
            array = np.asarray(value)
            if array.dtype.kind != "f":
                raise TypeError(f"{prefix}{name} holds {array.dtype}, not numbers")
            flat[prefix + name] = array
    return flat
