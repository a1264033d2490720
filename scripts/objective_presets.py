"""The objectives of `configs/objective/`, without composing a whole run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from shortcut_policy.config import from_mapping
from shortcut_policy.core.objectives import objective_class
from shortcut_policy.core.objectives.base import Objective

PRESETS = Path(__file__).parents[1] / "configs" / "objective"


def make_objective(preset: str, changes: Mapping[str, Any] | None = None) -> tuple[Objective, dict[str, Any]]:
    """The objective of `configs/objective/{preset}.yaml`, some options replaced by `changes`, and all its options.

    Raises:
        ValueError: there is no such preset, or an option does not fit.
    """
    path = PRESETS / f"{preset}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in PRESETS.glob("*.yaml")))
        raise ValueError(f"unknown objective {preset!r}: known are {known}")
    options = dict(OmegaConf.to_container(OmegaConf.load(path))) | dict(changes or {})
    name = options.pop("name")
    return from_mapping(objective_class(name), options, f"objectives.{preset}."), options
