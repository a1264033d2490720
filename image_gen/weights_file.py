"""Weights of other people's networks, read from files of which nothing is executed."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

__all__ = ["read_weights"]


def read_weights(path: Path, option: str) -> Mapping[str, Any]:
    """What a file of `torch.save` holds: tensors by name, on the CPU.

    Args:
        option: through which the file was named, to be quoted in messages.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no such file, or holds more than tensors.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{option}={path} does not exist: say where the weights are")
    try:
        weights = torch.load(path, weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"{option}={path} is no file of weights that can be read ({reason}): download it again"
        ) from error
    if not isinstance(weights, Mapping):
        raise ValueError(f"{option}={path} holds a {type(weights).__name__}, not weights by name: give another file")
    return weights
