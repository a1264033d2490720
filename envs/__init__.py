"""Simulated tasks as gymnasium environments.

Importing this package loads no simulator and never torch, so that worker processes start quickly; a simulator is
loaded when its environment is built.
"""

from types import MappingProxyType
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec

__all__ = ["check", "make", "register", "task_names"]


def _robosuite(name: str, env_name: str, max_steps: int) -> EnvSpec:
    return EnvSpec(
        id=f"shortcut_policy/{name}-v0",
        entry_point="envs.robosuite:RobosuiteEnv",
        max_episode_steps=max_steps,
        kwargs={"task": env_name},
    )


# robomimic's tasks have its caps of steps.
_TASKS = MappingProxyType(
    {
        "pusht": EnvSpec(id="shortcut_policy/PushT-v0", entry_point="envs.pusht:PushT", max_episode_steps=300),
        "lift": _robosuite("Lift", "Lift", 400),
        "can": _robosuite("Can", "PickPlaceCan", 400),
        "square": _robosuite("Square", "NutAssemblySquare", 400),
        "tool_hang": _robosuite("ToolHang", "ToolHang", 700),
        "transport": _robosuite("Transport", "TwoArmTransport", 700),
    }
)


def task_names() -> tuple[str, ...]:
    """Names that `make` knows, whether or not their simulators are installed."""
    return tuple(_TASKS)


def register() -> None:
    """Make the environments known to `gymnasium.make` by their ids, such as `shortcut_policy/PushT-v0`."""
    for spec in _TASKS.values():
        if spec.id not in gymnasium.registry:
            gymnasium.register(
                spec.id, spec.entry_point, max_episode_steps=spec.max_episode_steps, kwargs=dict(spec.kwargs)
            )


def make(name: str, *, max_steps: int | None = None, **options: Any) -> gymnasium.Env:
    """Build an environment by the short name of its task; `functools.partial(make, ...)` is a factory for workers.

    Args:
        name: The task, for example "pusht" or "lift".
        max_steps: Steps after which an episode is truncated; the task's own cap by default (300 for pusht, 400 or
            700 for robomimic's).
        options: Passed to the environment's constructor, for example `render_mode="rgb_array"`, or a data set's
            `env_args`.

    Raises:
        ValueError: If the task is unknown or `max_steps` is not positive.
        ImportError: If the task's simulator is not installed; the message names the extra that installs it.
    """
    spec = _spec(name)
    if max_steps is not None and max_steps < 1:
        raise ValueError(
            f"max_steps={max_steps} leaves no step to make: give at least 1, or None for the task's own cap"
        )
    return gymnasium.make(spec, max_episode_steps=max_steps, disable_env_checker=True, **options)


def check(name: str, *, built_here: bool = True, **options: Any) -> None:
    """Find mistakes in the arguments of `make` that need no simulator to be found, before a long training.

    Args:
        name: As of `make`.
        built_here: Whether the environment will be built on this machine, which must then be able to draw its pictures.
        options: As of `make`.

    Raises:
        ValueError: the task is unknown, or `env_args` are not of this task.
        ImportError: pictures will be asked for, and nothing can draw them.
    """
    spec = _spec(name)
    if "task" not in spec.kwargs:
        return
    if "env_args" in options:
        from envs.env_args import check_env_args

        check_env_args(options["env_args"], spec.kwargs["task"])
    if built_here and (options.get("render_mode") or options.get("cameras")):
        from envs.rendering import choose_backend

        choose_backend()  # once, for all workers that inherit the choice


def _spec(name: str) -> EnvSpec:
    if name not in _TASKS:
        raise ValueError(f"unknown environment {name!r}: choose one of {', '.join(_TASKS)}")
    return _TASKS[name]
