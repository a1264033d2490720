"""What the numbers of an action mean, and the form in which a network sees them."""

from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor

from shortcut_policy.data.rotations import (
    matrix_from_rot6d,
    matrix_from_rotation_vector,
    rot6d_from_matrix,
    rotation_vector_from_matrix,
)

__all__ = ["ActionCodec", "Representation"]

Representation = Literal["as_stored", "delta_pose", "absolute_pose"]

_Array = TypeVar("_Array", np.ndarray, Tensor)


@dataclass(frozen=True)
class ActionCodec:
    """The environment's actions (..., E) to the network's (..., D), and back.

        representation   E        of each arm                               D         of each arm
        as_stored        any      anything                                  E         the same
        delta_pose       7 arms   position 3, rotation vector 3, gripper    7 arms    the same
        absolute_pose    7 arms   position 3, rotation vector 3, gripper    10 arms   position 3, rot6d 6, gripper

    Units: a delta pose is scaled to [-1, 1]; an absolute one is a goal in the world, m and rad. The gripper is in
    [-1, 1]. Rotation vectors jump where the angle passes pi, and so for every gripper that points down; rot6d is
    continuous.

    Normalisation is fitted to D. `rotation_columns` should be left alone, as Diffusion Policy does: they lie in [-1, 1]
    already, and scaling each by its own limits would distort the rotations. All other columns take any normalisation.

    Args:
        representation: what the actions of the data set mean, and those that the environment takes.
        arms: how many; unused by "as_stored".

    Raises:
        ValueError: unknown representation, or arms that are no positive integer.
    """

    representation: Representation = "as_stored"
    arms: int = 1

    def __post_init__(self) -> None:
        if self.representation not in get_args(Representation):
            raise ValueError(
                f"action representation must be one of {', '.join(get_args(Representation))}, "
                f"got {self.representation!r}"
            )
        if isinstance(self.arms, bool) or not isinstance(self.arms, int) or self.arms < 1:
            raise ValueError(f"arms must be a positive integer, got {self.arms!r}")

    def __str__(self) -> str:
        if self.representation == "as_stored":
            return "'as_stored'"
        return f"{self.representation!r} of {self.arms} arm{'s' * (self.arms > 1)}"

    def encode(self, actions: _Array) -> _Array:
        """(..., E) to (..., D), of the same kind and type.

        Raises:
            ValueError: E does not fit the representation.
        """
        self.check(actions.shape[-1])
        if self.representation != "absolute_pose":
            return actions
        if isinstance(actions, np.ndarray):
            return self.encode(torch.tensor(actions)).numpy()
        position, rotation, gripper = actions.unflatten(-1, (self.arms, 7)).split((3, 3, 1), dim=-1)
        rotation = rot6d_from_matrix(matrix_from_rotation_vector(rotation))
        return torch.cat((position, rotation, gripper), dim=-1).flatten(-2)

    def decode(self, actions: _Array) -> _Array:
        """(..., D) to (..., E), of the same kind and type; any rot6d is brought to a rotation first.

        Raises:
            ValueError: D does not fit the representation.
        """
        if self.representation != "absolute_pose":
            self.check(actions.shape[-1])
            return actions
        if actions.shape[-1] != 10 * self.arms:
            raise ValueError(f"encoded actions {self} have {10 * self.arms} numbers, got {actions.shape[-1]}")
        if isinstance(actions, np.ndarray):
            return self.decode(torch.tensor(actions)).numpy()
        position, rotation, gripper = actions.unflatten(-1, (self.arms, 10)).split((3, 6, 1), dim=-1)
        rotation = rotation_vector_from_matrix(matrix_from_rot6d(rotation))
        return torch.cat((position, rotation, gripper), dim=-1).flatten(-2)

    def encoded_dim(self, dim: int) -> int:
        """D for E = dim.

        Raises:
            ValueError: E does not fit the representation.
        """
        self.check(dim)
        return 10 * self.arms if self.representation == "absolute_pose" else dim

    def rotation_columns(self) -> tuple[int, ...]:
        """Columns of D that hold rot6d: in [-1, 1], not to be normalised."""
        if self.representation != "absolute_pose":
            return ()
        return tuple(10 * arm + column for arm in range(self.arms) for column in range(3, 9))

    def check(self, dim: int) -> None:
        """Refuse actions whose width E = dim does not fit.

        Raises:
            ValueError: quoting both widths.
        """
        if self.representation != "as_stored" and dim != 7 * self.arms:
            raise ValueError(
                f"actions {self} have {7 * self.arms} numbers, got {dim}: correct the representation or the arms"
            )

    def check_same(self, other: "ActionCodec", *, ours: str = "the policy", theirs: str = "the data set") -> None:
        """Refuse actions that mean something else.

        Raises:
            ValueError: quoting both codecs.
        """
        if str(self) != str(other):
            raise ValueError(
                f"{ours} has actions {self}, but {theirs} has {other}: choose the same representation for both"
            )
