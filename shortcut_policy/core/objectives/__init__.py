"""Objectives by name: one file each; the class is the file's name in camel case (`flow_matching`: `FlowMatching`)."""

import importlib
import pkgutil
from typing import cast


def objective_names() -> tuple[str, ...]:
    """The names that `objective_class` knows, in alphabetical order."""
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
