"""Simulated tasks as gymnasium environments.

Importing this package loads no simulator and never torch, so that worker processes start quickly; a simulator is
loaded when its environment is built.
"""

from types import MappingProxyType
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

__all__ = ["make", "register"]

_TASKS = MappingProxyType(
    {"pusht": EnvSpec(id="shortcut_policy/PushT-v0", entry_point="envs.pusht:PushT", max_episode_steps=300)}
)


def register() -> None:
    """Make the environments known to `gymnasium.make` by their ids, such as `shortcut_policy/PushT-v0`."""
    for spec in _TASKS.values():
        if spec.id not in gymnasium.registry:
            gymnasium.register(spec.id, spec.entry_point, max_episode_steps=spec.max_episode_steps)


def make(name: str, *, max_steps: int | None = None, **options: Any) -> gymnasium.Env:
    """Build an environment by the short name of its task; `functools.partial(make, ...)` is a factory for workers.

    Args:
        name: The task, for example "pusht".
        max_steps: Steps after which an episode is truncated; the task's own cap by default (300 for pusht).
        options: Passed to the environment's constructor, for example `render_mode="rgb_array"`.

    Raises:
        ValueError: If the task is unknown or `max_steps` is not positive.
        ImportError: If the task's simulator is not installed; the message names the extra that installs it.
    """
    if name not in _TASKS:
        raise ValueError(f"unknown environment {name!r}: choose one of {', '.join(sorted(_TASKS))}")
    if max_steps is not None and max_steps < 1:
        raise ValueError(
            f"max_steps={max_steps} leaves no step to make: give at least 1, or None for the task's own cap"
        )
    return gymnasium.make(_TASKS[name], max_episode_steps=max_steps, disable_env_checker=True, **options)
