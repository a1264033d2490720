"""What an environment's info says about success."""

from collections.abc import Mapping
from typing import Any

import numpy as np

__all__ = ["told_success"]


def told_success(info: Mapping[str, Any]) -> bool | None:
    """`is_success` of an info; None where it has none.

    Raises:
        ValueError: it is no bool; robomimic's own environments tell a dictionary, which would be true whatever it says.
    """
    if "is_success" not in info:
        return None
    array = np.asarray(info["is_success"])
    if array.size != 1 or array.dtype.kind not in "biuf":
        raise ValueError(f"the environment's info says is_success={info['is_success']!r}: it must be a bool")
    return bool(array.item())
