"""Networks that a training of images begins with or learns from: of an earlier one of the same architecture."""

import inspect

from torch import nn

from image_gen.dit import IMAGE_NETWORKS
from image_gen.generator import Generator
from shortcut_policy.config import Component
from shortcut_policy.pretrained import find_checkpoint
from shortcut_policy.trained_objective import check_flow, check_same_sigma

ARCHITECTURE = ("channels", "size", "num_classes", "network", "autoencoder")


def read_begun(path: str, made: Generator) -> nn.Module:
    """The network of a trained generator, for a training to begin with.

    Raises:
        FileNotFoundError, ValueError: there is none, or it differs; the message says in what.
    """
    begun = _read(path, made, "init_from")
    check_same_sigma(begun.config.objective, made.config.objective, "init_from", path)
    return begun.network


def read_teacher(path: str, student: Generator) -> nn.Module:
    """The network of a trained flow, for a student that distils it.

    Raises:
        FileNotFoundError, ValueError: as `read_begun`; or it is no flow.
    """
    teacher = _read(path, student, "teacher")
    check_flow(teacher.config.objective, student.config.objective, path)
    return teacher.network


def _read(path: str, made: Generator, option: str) -> Generator:
    trained = Generator.from_pretrained(find_checkpoint(path), made.device)
    for name in ARCHITECTURE:
        there, here = (_said(getattr(each.config, name)) for each in (trained, made))
        if there != here:
            raise ValueError(f"{option}={path} has {name} {there}, and this run {here}: they must agree")
    return trained


def _said(value: object) -> object:
    """A value of the configuration, with all options of a network, but for the one that only costs time."""
    if not isinstance(value, Component):
        return value
    parameters = inspect.signature(IMAGE_NETWORKS[value.name]).parameters.values()
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    return {"name": value.name, **defaults, **value.options, "checkpointing": None}
