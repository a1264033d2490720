"""msgpack with numpy arrays in it, as openpi's clients and servers write it. Nothing that arrives is ever executed.

An array is the map {b"__ndarray__": True, b"data": its bytes in C order, b"dtype": "<f4", b"shape": (2, 3)}, a numpy
scalar {b"__npgeneric__": True, b"data": 0.5, b"dtype": "<f4"}. Booleans, integers and floats are all there is: dtypes
that hold Python objects, whose bytes would be pickles or pointers, are refused on both sides.
"""

import math
import re
from typing import Any

import numpy as np

try:
    import msgpack
except ImportError as error:
    raise ImportError("serving policies needs the extra 'server': pip install -e '.[server]'") from error

_DTYPE = re.compile(r"[<>|=]?(b1|[iu][1248]|f[248])")
_ARRAY_KEYS = {b"__ndarray__", b"data", b"dtype", b"shape"}
_SCALAR_KEYS = {b"__npgeneric__", b"data", b"dtype"}
# A message of a few megabytes can ask for gigabytes of small Python objects; what is needed here are a few maps.
_MAX_CONTAINERS = 1024
_MAX_LENGTH = 4096


def pack(message: Any) -> bytes:
    """Write a message: maps, lists, text, numbers, booleans, None, and numpy arrays and scalars.

    Raises:
        ValueError: it holds something else.
    """
    try:
        return msgpack.packb(message, default=_pack_numpy)
    except (TypeError, OverflowError) as error:
        raise ValueError(f"the message cannot be sent: {error}") from error


def unpack(data: bytes) -> Any:
    """Read a message; the inverse of `pack`, but tuples come back as lists. Arrays are new and may be written to.

    Raises:
        ValueError: it is no msgpack, or holds an array that does not fit its own description or may not be sent.
    """
    reader = _Reader()
    try:
        return msgpack.unpackb(
            data,
            object_hook=reader.map,
            list_hook=reader.list,
            ext_hook=_refuse_extension,
            max_array_len=_MAX_LENGTH,
            max_map_len=_MAX_LENGTH,
        )
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        reason = str(error) or type(error).__name__
        raise ValueError(f"the message of {len(data)} bytes cannot be read: {reason}") from error


class _Reader:
    """The hooks of one message, which count what they are given."""

    def __init__(self) -> None:
        self._containers = 0

    def map(self, value: dict[Any, Any]) -> Any:
        self._count()
        if b"__ndarray__" in value:
            return _read_array(value)
        if b"__npgeneric__" in value:
            return _read_scalar(value)
        return value

    def list(self, value: list[Any]) -> list[Any]:
        self._count()
        return value

    def _count(self) -> None:
        self._containers += 1
        if self._containers > _MAX_CONTAINERS:
            raise ValueError(f"it holds more than {_MAX_CONTAINERS} maps and lists: send numbers as arrays")


def _pack_numpy(value: Any) -> dict[bytes, Any]:
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"values of type {type(value).__name__} have no place in it")
    if not _DTYPE.fullmatch(value.dtype.str):
        raise TypeError(f"arrays must hold booleans, integers or floats of at most 64 bits, got dtype {value.dtype}")
    if isinstance(value, np.generic):
        return {b"__npgeneric__": True, b"data": value.item(), b"dtype": value.dtype.str}
    return {b"__ndarray__": True, b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}


def _read_array(value: dict[Any, Any]) -> np.ndarray:
    if value.keys() != _ARRAY_KEYS:
        raise ValueError(f"an array must have the keys {sorted(_ARRAY_KEYS)}, got {str(list(value))[:80]}")
    dtype, shape, data = _dtype(value[b"dtype"]), value[b"shape"], value[b"data"]
    if not isinstance(shape, list) or len(shape) > 32 or not all(type(n) is int and n >= 0 for n in shape):
        raise ValueError(f"an array's shape must be a list of at most 32 sizes, got {str(shape)[:80]}")
    if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize:
        found = f"{len(data)} bytes" if isinstance(data, bytes) else type(data).__name__
        raise ValueError(f"an array of shape {tuple(shape)} and dtype {dtype} does not fit its data: {found}")
    return np.frombuffer(data, dtype).reshape(shape).copy()


def _read_scalar(value: dict[Any, Any]) -> np.generic:
    if value.keys() != _SCALAR_KEYS:
        raise ValueError(f"a numpy scalar must have the keys {sorted(_SCALAR_KEYS)}, got {str(list(value))[:80]}")
    number = value[b"data"]
    if not isinstance(number, bool | int | float):
        raise ValueError(f"a numpy scalar must be a number, got {type(number).__name__}")
    return _dtype(value[b"dtype"]).type(number)


def _dtype(name: Any) -> np.dtype:
    if not isinstance(name, str) or not _DTYPE.fullmatch(name):
        raise ValueError(
            f"arrays must hold booleans, integers or floats of at most 64 bits, got dtype {str(name)[:40]!r}"
        )
    return np.dtype(name)


def _refuse_extension(code: int, data: bytes) -> Any:
    raise ValueError(f"msgpack extension types are not used here, got type {code}")
