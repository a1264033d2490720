"""Prefix conditioning: a chunk that continues the actions which are committed when it is sampled.

While a chunk is sampled the robot goes on with the old one. What it will have executed by then is known, and a policy
that is given it makes a chunk that fits to its end, so that there is no jump at the joint (real-time chunking: Black
et al., arXiv 2506.07339). Here this is trained in (arXiv 2512.05964), which costs nothing when sampling:

    past actions     p            action_offset = -1 (Diffusion Policy's alignment), else none: predicted as ever
    known              K K        k = 2 of at most P = prefix_steps, from now on
    predicted              a a a a a

For every row of a training batch k is drawn uniformly from 0 ... P. The known actions are the demonstrated ones; they
are left out of the loss, and stand in the condition, from where `PolicyNetwork` puts them in the place of the noised
ones. k = 0 is the policy without any prefix.

Shapes: B batch, T horizon, T' actions from now on, A action channels, E channels of the environment's action.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from shortcut_policy.nn.policy_network import KNOWN_ACTIONS, KNOWN_MASK

__all__ = ["ActionPrefix", "known_part", "prefix_mask"]


def prefix_mask(steps: Tensor, horizon: int, now: int = 0) -> Tensor:
    """Which actions (B, T) of chunks are known, where `steps` (B,) of them are, from index `now` on."""
    index = torch.arange(horizon, device=steps.device)
    return (index >= now) & (index < now + steps[:, None])


def known_part(actions: Tensor, mask: Tensor) -> Mapping[str, Tensor]:
    """The part of the condition that gives the network actions (B, T, A), normalised, where mask (B, T) is true."""
    return {KNOWN_ACTIONS: torch.where(mask.unsqueeze(-1), actions, 0.0), KNOWN_MASK: mask}


@dataclass(frozen=True)
class ActionPrefix:
    """The actions that the chunks of a batch begin with; of fixed shape, however many they are.

    Attributes:
        actions: (B, P, E) in the data's units; what lies beyond a row's steps means nothing.
        steps: (B,) int64, how many are known in every row, 0 ... P.
    """

    actions: Tensor
    steps: Tensor

    @classmethod
    def checked(
        cls,
        actions: Tensor | None,
        steps: Tensor | None,
        *,
        shape: tuple[int, int, int],
        device: torch.device | str = "cpu",
    ) -> Self:
        """Make it of what a caller gives.

        Args:
            actions: (B, k, E), k <= P; None for nothing.
            steps: (B,), how many of these are known in every row; None for all k.
            shape: (B, P, E) of the policy and its observations.
            device: of the policy.

        Raises:
            ValueError: a shape or number does not fit.
        """
        rows, most, width = shape
        padded = torch.zeros(shape, device=device)
        if actions is None:
            if steps is not None:
                raise ValueError(f"known_steps={steps} says how many of known_actions are known: give these as well")
            return cls(padded, torch.zeros(rows, dtype=torch.int64, device=device))
        given = torch.as_tensor(actions, dtype=torch.float32, device=device)
        if given.ndim != 3 or (len(given), given.shape[2]) != (rows, width):
            raise ValueError(f"known_actions must have shape ({rows}, k, {width}), got {tuple(given.shape)}")
        count = given.shape[1]
        if count > most:
            raise ValueError(f"known_actions holds {count} steps, but the policy was trained with prefix_steps={most}")
        padded[:, :count] = given
        if steps is None:
            return cls(padded, torch.full((rows,), count, device=device))
        steps = torch.as_tensor(steps, device=device)
        if steps.shape != (rows,) or steps.is_floating_point() or bool(((steps < 0) | (steps > count)).any()):
            raise ValueError(
                f"known_steps must be {rows} whole numbers in 0 ... {count}, the steps of known_actions, "
                f"got {steps.tolist()}"
            )
        return cls(padded, steps.long())

    def begin(self, chunk: Tensor) -> Tensor:
        """The chunk (B, T', E) with these actions in the place of its first ones."""
        most = self.actions.shape[1]
        known = prefix_mask(self.steps, most).unsqueeze(-1)  # (B, P, 1)
        return torch.cat([torch.where(known, self.actions, chunk[:, :most]), chunk[:, most:]], dim=1)
