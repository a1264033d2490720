"""From plain mappings (YAML, JSON) to frozen dataclasses, with errors that quote the wrong value."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Component:
    """A part chosen by name, with its options."""

    name: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """Build the dataclass `cls` from `values`, nested dataclasses included.

    Args:
        where: prefix of field names in messages, such as "trainer.".

    Raises:
        ValueError: a key is unknown or missing, or a value has the wrong type; whatever `cls` raises itself.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"{where.rstrip('.') or cls.__name__} must be a mapping, got {values!r}")
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ValueError(f"unknown option {where}{key}: known are {', '.join(fields)}")
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in values:
            raise ValueError(f"option {where}{name} is missing")
    return cls(**{name: _convert(hints[name], value, where + name) for name, value in values.items()})


def read_json(cls: type[T], path: Path, remedy: str = "restore it or measure again") -> T:
    """Build the dataclass `cls` from a JSON file.

    Args:
        remedy: what to do about a damaged file.

    Raises:
        ValueError: it is damaged, or its values do not fit.
    """
    try:
        values = json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from error
    return from_mapping(cls, values, f"{path.name}: ")


def to_mapping(value: Any) -> Any:
    """The inverse: dataclasses become dicts and tuples lists, ready for JSON."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: to_mapping(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: to_mapping(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_mapping(item) for item in value]
    return value


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not type(None))
        return _convert(inner, value, where)
    if origin is typing.Literal:
        if value not in arguments:
            raise ValueError(f"{where} must be one of {', '.join(map(str, arguments))}, got {value!r}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError(f"{where} must be a list, got {value!r}")
        repeats = len(arguments) == 2 and arguments[1] is Ellipsis
        if not repeats and len(value) != len(arguments):
            raise ValueError(f"{where} must have {len(arguments)} entries, got {value!r}")
        kinds = arguments[:1] * len(value) if repeats else arguments
        pairs = zip(kinds, value, strict=True)
        return tuple(_convert(kind, item, f"{where}[{i}]") for i, (kind, item) in enumerate(pairs))
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{where} must be a mapping, got {value!r}")
        return {key: _convert(arguments[1], item, f"{where}.{key}") for key, item in value.items()}
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_mapping(hint, value, where + ".")
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where} must be of type {hint.__name__}, got {value!r}")
    return value
