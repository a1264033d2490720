"""Scripted experts: controllers that know the simulator's state and do a task in several distinct ways.

Importing this package loads nothing heavy.
"""

import importlib
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from envs.experts.motion import Expert, Settings
    from envs.robosuite import RobosuiteEnv

__all__ = ["env_name", "make_expert", "settings_of", "task_names"]


@dataclass(frozen=True)
class _Entry:
    """robosuite's name of the environment, and the module with `plan` and `SETTINGS`."""

    env_name: str
    module: str


_EXPERTS = MappingProxyType(
    {
        "lift": _Entry("Lift", "envs.experts.lift"),
        "can": _Entry("PickPlaceCan", "envs.experts.can"),
        "square": _Entry("NutAssemblySquare", "envs.experts.square"),
        "transport": _Entry("TwoArmTransport", "envs.experts.transport"),
    }
)


def task_names() -> tuple[str, ...]:
    """Tasks that have an expert."""
    return tuple(_EXPERTS)


def env_name(task: str) -> str:
    """robosuite's name of a task's environment.

    Raises:
        ValueError: the task has no expert.
    """
    return _entry(task).env_name


def settings_of(task: str) -> "Settings":
    """From what a task's expert draws its style.

    Raises:
        ValueError: the task has no expert.
    """
    return importlib.import_module(_entry(task).module).SETTINGS


def make_expert(
    task: str, env: "RobosuiteEnv", rng: "np.random.Generator", settings: "Settings | None" = None
) -> "Expert":
    """Make the expert for one episode, which begins in the present state.

    Args:
        task: short name, such as "lift".
        env: the task's, with delta poses as actions; `envs.make(...).unwrapped`, after a reset.
        rng: of this expert alone: all that it draws.
        settings: the task's own by default.

    Raises:
        ValueError: the task has no expert, or the environment takes other actions.
    """
    from envs.experts.motion import Expert

    module = importlib.import_module(_entry(task).module)
    return Expert(env, rng, module.plan, module.SETTINGS if settings is None else settings)


def _entry(task: str) -> _Entry:
    if task not in _EXPERTS:
        raise ValueError(f"there is no expert for {task!r}: choose one of {', '.join(_EXPERTS)}")
    return _EXPERTS[task]
