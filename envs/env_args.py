"""What a data set says of the robosuite environment in which it was recorded: robomimic's `env_args`."""

import importlib.metadata
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

__all__ = ["RecordedEnvironment", "check_env_args", "simulator_versions"]

_ROBOSUITE_TYPE = 1  # robomimic's number for it

# What env_args say of these is not passed on: it is decided here, or configures controllers, which are converted.
_OURS = frozenset(
    {"has_renderer", "has_offscreen_renderer", "use_camera_obs", "use_object_obs", "ignore_done", "horizon", "renderer"}
    | {"camera_names", "camera_heights", "camera_widths", "camera_depths", "camera_segmentations", "hard_reset", "seed"}
    | {"render_gpu_device_id", "render_camera", "render_collision_mesh", "render_visual_mesh", "renderer_config"}
    | {"controller_configs", "robots", "gripper_visualization", "camera_depth"}
)


@dataclass(frozen=True)
class RecordedEnvironment:
    """`env_args`, read.

    Attributes:
        name: robosuite's name of the environment.
        robots: names of the robots.
        controllers: `controller_configs` as recorded, in the form of robosuite 1.4 or 1.5; None for its default.
        options: further arguments of the environment.
        version: of robosuite, such as "1.4.1"; None where it was not recorded.
        is_before_1_5: whether that robosuite composed observations and moved arms in the older way.
    """

    name: str
    robots: tuple[str, ...]
    controllers: Any
    options: Mapping[str, Any]
    version: str | None
    is_before_1_5: bool

    @classmethod
    def of_today(cls, name: str) -> Self:
        """An environment as the installed robosuite has it, with Panda arms."""
        return cls(name, _default_robots(name), None, {}, None, False)

    @classmethod
    def from_env_args(cls, env_args: Mapping[str, Any], task: str | None = None) -> Self:
        """Read `env_args`, which must be those of the environment `task` where that is given.

        Those without a version are of 1.2: robomimic's first data sets, whose successors all have one.

        Raises:
            ValueError: they name no environment, another one, or one that is not robosuite's; the version is none.
        """
        name = env_args.get("env_name")
        if not isinstance(name, str):
            raise ValueError(f"env_args name no environment: 'env_name' is {name!r}")
        kind = env_args.get("type", _ROBOSUITE_TYPE)
        if kind != _ROBOSUITE_TYPE:
            raise ValueError(f"env_args of {name!r} are of type {kind!r}: only robosuite's, 1, can be built")
        if task is not None and name != task:
            raise ValueError(f"env_args are of {name!r}, but the environment is {task!r}: choose the data's own task")
        kwargs = dict(env_args.get("env_kwargs") or {})
        robots = kwargs.get("robots") or _default_robots(name)
        version = env_args.get("env_version")
        return cls(
            name,
            (robots,) if isinstance(robots, str) else tuple(robots),
            kwargs.get("controller_configs"),
            {key: value for key, value in kwargs.items() if key not in _OURS},
            None if version is None else str(version),
            version is None or _major_minor(str(version)) < (1, 5),
        )

    def warn_if_another_is_installed(self) -> None:
        """Warn of an installed robosuite that is not the recorded one: contacts may differ, and with them scores."""
        try:
            installed = importlib.metadata.version("robosuite")
        except importlib.metadata.PackageNotFoundError:
            return
        if self.version != installed and (self.version or self.is_before_1_5):
            warnings.warn(
                f"{self.name} was recorded with robosuite {self.version or '1.2 or so'}, installed is {installed}: "
                "contacts may differ, and with them scores",
                stacklevel=3,
            )


def check_env_args(env_args: Mapping[str, Any], task: str | None = None) -> None:
    """Check `env_args` as far as that needs no simulator, and warn if they tell of another robosuite.

    Raises:
        ValueError: as `RecordedEnvironment.from_env_args`.
    """
    RecordedEnvironment.from_env_args(env_args, task).warn_if_another_is_installed()


def simulator_versions() -> dict[str, str]:
    """Look up which robosuite and MuJoCo are installed, by the names of their packages.

    Raises:
        ImportError: one of them is not.
    """
    versions = {}
    for package in ("robosuite", "mujoco"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise ImportError(f"this needs {package}: install it with `pip install -e .[robosuite]`") from None
    return versions


def _default_robots(name: str) -> tuple[str, ...]:
    return ("Panda", "Panda") if name.startswith("TwoArm") else ("Panda",)


def _major_minor(version: str) -> tuple[int, int]:
    try:
        major, minor = version.split(".")[:2]
        return int(major), int(minor)
    except ValueError:
        raise ValueError(f"env_version {version!r} of env_args is no version of robosuite such as '1.4.1'") from None
