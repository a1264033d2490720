"""Networks that a training begins with or learns from: of an earlier training of the same architecture and data."""

from typing import Any

import torch
from torch import nn

from shortcut_policy.config import to_mapping
from shortcut_policy.policy import Policy
from shortcut_policy.policy_config import PolicyConfig
from shortcut_policy.pretrained import find_checkpoint
from shortcut_policy.trained_objective import check_flow


def read_trained(path: str, policy: Policy, option: str) -> Policy:
    """A trained policy that sees and does what `policy` does: same network, window, actions and normalization.

    Args:
        option: through which it was asked for, to be named in messages.

    Raises:
        FileNotFoundError, ValueError: there is none, or it differs; the message says in what.
    """
    trained = Policy.from_pretrained(find_checkpoint(path), policy.device)
    there, here = (_architecture(each.config) for each in (trained, policy))
    for name in sorted(here.keys() - {"objective", "metadata", "action_steps", "noise_scale"}):
        if there[name] != here[name]:
            raise ValueError(f"{option}={path} has {name} {there[name]}, and this run {here[name]}: they must agree")
    fitted = policy.normalizer.state_dict()
    if any(not torch.equal(value, fitted[name]) for name, value in trained.normalizer.state_dict().items()):
        raise ValueError(f"{option}={path} was trained on other data: its normalizer differs")
    return trained


def _architecture(config: PolicyConfig) -> dict[str, Any]:
    """What two policies must have in common to have the same network; how images vary in training is not of it."""
    values = to_mapping(config)
    if values["vision"] is not None:
        varied = ("brightness", "contrast", "saturation", "cache_features")
        values["vision"] = {key: value for key, value in values["vision"].items() if key not in varied}
        values["vision"]["encoder"]["options"].pop("pretrained", None)
    return values


def read_teacher(path: str, student: Policy) -> nn.Module:
    """The network of a trained flow, for a student that distils it.

    Raises:
        FileNotFoundError, ValueError: as `read_trained`; or it is no flow, or another kind of it.
    """
    teacher = read_trained(path, student, "teacher")
    check_flow(teacher.config.objective, student.config.objective, path)
    return teacher.network
