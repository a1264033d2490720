"""Objectives by name: one file each; the class is the file's name in camel case (`flow_matching`: `FlowMatching`)."""

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any, cast

from shortcut_policy.core.objectives.base import Objective


def objective_names() -> tuple[str, ...]:
    """The names that `make_objective` knows, in alphabetical order."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "base"))


def objective_class(name: str) -> type:
    """The class of an objective.

    Raises:
        ValueError: no objective has that name.
    """
    if name not in objective_names():
        raise ValueError(f"unknown objective {name!r}: known are {', '.join(objective_names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    return cast(type, getattr(module, "".join(word.capitalize() for word in name.split("_"))))


def make_objective(name: str, options: Mapping[str, Any] | None = None) -> Objective:
    """Build an objective from its name and options.

    Raises:
        ValueError: unknown name, unknown option, or a value out of range; the message quotes it.
    """
    cls = objective_class(name)
    known = cls.__dataclass_fields__.keys()  # type: ignore[attr-defined]
    for option in options or {}:
        if option not in known:
            raise ValueError(f"objective {name!r} has no option {option!r}: it has {', '.join(known)}")
    return cast(Objective, cls(**(options or {})))
