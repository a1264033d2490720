"""What the objective of a trained network must be, for another training to begin with the network or to distil it."""

from shortcut_policy.config import Component
from shortcut_policy.core.objectives.base import check_guidance

__all__ = ["check_flow", "check_same_sigma"]


def check_flow(there: Component, here: Component, path: str) -> None:
    """Refuse a teacher that is no flow, or one that the student's objective cannot distil.

    Args:
        there, here: objectives of the teacher and of the student.
        path: where the teacher was found, to be named in the message.

    Raises:
        ValueError: it was trained by another objective, without what its guidance needs, or predicts something else.
    """
    if there.name != "flow_matching":
        raise ValueError(f"teacher={path} was trained by {there.name}: it must be flow_matching")
    if here.options.get("guidance", 1.0) != 1.0:
        check_guidance(here.options["guidance"], there.options.get("condition_dropout", 0.0))
    check_same_sigma(there, here, "teacher", path)


def check_same_sigma(there: Component, here: Component, option: str, path: str) -> None:
    """Refuse a network that predicts something else than this training's: with another `Preconditioning`, or none.

    Args:
        there, here: objectives of the trained network and of this training.
        option, path: through which and where it was found, to be named in the message.

    Raises:
        ValueError: they differ.
    """
    sigmas = [each.options.get("sigma_data") for each in (there, here)]
    if sigmas[0] != sigmas[1]:
        words = ["null" if value is None else str(value) for value in sigmas]
        more = " objective.weighting=null" if sigmas[0] is None and here.options.get("weighting") else ""
        raise ValueError(
            f"{option}={path} was trained with sigma_data={words[0]}, and objective.sigma_data is {words[1]}: its "
            f"network predicts something else; say objective.sigma_data={words[0]}{more}"
        )
