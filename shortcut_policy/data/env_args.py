"""The environment in which a robomimic data set was recorded, and what its actions mean there."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from shortcut_policy.data.robomimic_hdf5 import open_robomimic

ROBOSUITE = 1
"""robomimic's number for robosuite environments; 2 is gym."""

COLUMNS_PER_ARM = 7
"""Position (3), rotation vector (3), gripper (1)."""


@dataclass(frozen=True)
class EnvArgs:
    """What a data set says about its environment.

    Attributes:
        env_name: such as "Lift", "NutAssemblySquare".
        type: robomimic's number of the kind of environment.
        env_kwargs: arguments with which it was made.
        env_version: of the simulator's package, None where it was not recorded.
    """

    env_name: str
    type: int
    env_kwargs: Mapping[str, Any] = field(default_factory=dict)
    env_version: str | None = None


def read_env_args(path: str | Path) -> EnvArgs | None:
    """Read `env_args` of a robomimic data set, or `env_info` of a raw robosuite recording; None where both are absent.

    Raises:
        FileNotFoundError: when there is nothing at `path`.
        ValueError: when it is no HDF5 file of this layout, or the text is not the JSON expected.
    """
    with open_robomimic(path) as file:
        attributes = dict(file.attributes)
    if "env_args" in attributes:
        values = _load(attributes["env_args"], f"env_args of {path}")
        version = values.get("env_version")
    elif "env_info" in attributes:
        kwargs = _load(attributes["env_info"], f"env_info of {path}")
        name = kwargs.pop("env_name", None) or _text(attributes.get("env", ""))
        values = {"env_name": name, "type": ROBOSUITE, "env_kwargs": kwargs}
        version = attributes.get("repository_version")
    else:
        return None
    name, kind, kwargs = values.get("env_name"), values.get("type"), values.get("env_kwargs") or {}
    if not isinstance(name, str) or type(kind) is not int or not isinstance(kwargs, Mapping):
        raise ValueError(
            f"env_args of {path} must hold env_name (text), type (a whole number) and env_kwargs (a mapping), "
            f"not {name!r}, {kind!r} and {kwargs!r}"
        )
    return EnvArgs(name, kind, kwargs, None if version is None else _text(version))


def _load(text: object, where: str) -> dict[str, Any]:
    try:
        values = json.loads(_text(text))
    except ValueError as error:
        raise ValueError(f"{where} is no JSON ({error}): repair the attribute") from error
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be a JSON object, not {values!r}")
    return values


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def recorded_representation(env_args: EnvArgs | None, array: str) -> Literal["delta_pose", "absolute_pose"] | None:
    """Say what an array of actions holds by the controllers it was recorded with; None where that is not known.

    Known are robosuite's OSC_POSE controllers of fixed impedance, configured in the form of 1.4 (`control_delta`) or
    in the composite one of 1.5 (`input_type`). `actions_abs` is absolute by the name's convention.
    """
    if env_args is None or env_args.type != ROBOSUITE:
        return None
    controllers = list(_arm_controllers(env_args.env_kwargs.get("controller_configs")))
    if not controllers or any(
        controller.get("type") != "OSC_POSE" or controller.get("impedance_mode", "fixed") != "fixed"
        for controller in controllers
    ):
        return None
    match array.removeprefix("/") or "actions":
        case "actions_abs":
            return "absolute_pose"
        case "actions":
            deltas = {_takes_deltas(controller) for controller in controllers}
            return None if len(deltas) > 1 else "delta_pose" if deltas.pop() else "absolute_pose"
    return None


def _arm_controllers(configs: object) -> Iterator[Mapping[str, Any]]:
    """Yield the configuration of every arm: one for all robots or a list, of parts (1.4) or of whole bodies (1.5)."""
    if isinstance(configs, Mapping):
        configs = [configs]
    if not isinstance(configs, Sequence) or isinstance(configs, str):
        return
    for config in configs:
        if not isinstance(config, Mapping):
            continue
        parts = config.get("body_parts")
        if parts is None:
            yield config
        elif isinstance(parts, Mapping):
            arms = parts.get("arms", parts)
            yield from (arms[side] for side in ("right", "left") if isinstance(arms.get(side), Mapping))


def _takes_deltas(controller: Mapping[str, Any]) -> bool:
    """robosuite's defaults are deltas in either form."""
    if "input_type" in controller:
        return controller["input_type"] != "absolute"
    return bool(controller.get("control_delta", True))


def arms(env_args: EnvArgs | None) -> int | None:
    """Return the number of arms of a robosuite environment; None where it is not known."""
    if env_args is None or env_args.type != ROBOSUITE:
        return None
    robots = env_args.env_kwargs.get("robots")
    count = 1 if isinstance(robots, str) else len(robots) if isinstance(robots, Sequence) else None
    return 2 if env_args.env_name.startswith("TwoArm") else count  # Baxter alone has two


def check_codec(
    env_args: EnvArgs | None, array: str, representation: str, actions: np.ndarray, source: str = "the data set"
) -> None:
    """Refuse to read actions as something else than the data set holds.

    Args:
        env_args: of the data set, None where it has none: then only the width can be verified.
        array: name of the actions in the data set; empty: "actions".
        representation: what the task takes them for: "as_stored", "delta_pose" or "absolute_pose".
        actions: (N, A) as stored.
        source: of the data, for messages.

    Raises:
        ValueError: when the representation is not the recorded one, or poses are not 7 columns for each arm.
    """
    array = array.removeprefix("/") or "actions"
    recorded = recorded_representation(env_args, array)
    if recorded == "delta_pose" and _exceed_deltas(actions):
        recorded = "absolute_pose"  # Diffusion Policy's *_abs.hdf5: `actions` replaced, `env_args` left as they were
    if recorded is not None and representation != recorded:
        raise ValueError(_mismatch(array, representation, recorded, source))
    if representation == "as_stored":
        return
    width, count = actions.shape[1], arms(env_args)
    if width % COLUMNS_PER_ARM or (count is not None and width != COLUMNS_PER_ARM * count):
        wanted = "a multiple of 7" if count is None else f"{COLUMNS_PER_ARM * count}"
        raise ValueError(
            f"{array} of {source} are {width} wide, but as {representation} they must be {wanted}: "
            f"position (3), rotation vector (3) and gripper (1) for each arm"
        )


def _exceed_deltas(actions: np.ndarray) -> bool:
    """Say whether most rotations are longer than deltas can be, which the controller clips to [-1, 1] on each axis."""
    if actions.shape[1] % COLUMNS_PER_ARM:
        return False
    rotation = actions.reshape(len(actions), -1, COLUMNS_PER_ARM)[..., 3:6]  # (N, arms, 3)
    return bool(np.median(np.linalg.norm(rotation, axis=-1)) > np.sqrt(3))


def _mismatch(array: str, representation: str, recorded: str, source: str) -> str:
    message = f"{array} of {source} are {recorded} actions, not {representation}"
    if representation == "as_stored":
        return f"{message}: configure {recorded}" + (
            ", or absolute_pose after a conversion with scripts/convert_demos.py" if recorded == "delta_pose" else ""
        )
    if representation == "absolute_pose":
        return (
            f"{message}: read actions_abs where the file has it, or add it with "
            f"`python scripts/convert_demos.py input={source} output=NEW.hdf5`"
        )
    if representation == "delta_pose":
        return f"{message}: " + ("read actions instead" if array == "actions_abs" else f"configure {recorded}")
    return f"{message}: configure as_stored, delta_pose or absolute_pose"
