"""What a network is to the core, and a network bound to the conditions of one batch."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from shortcut_policy.core.interpolant import expand_rows

Condition = Tensor | Mapping[str, Tensor] | None
"""What a network is conditioned on: nothing, a tensor, or named tensors; every leaf has leading dimension B."""


class Network(Protocol):
    """The raw prediction of a DiT or a 1-D U-Net, with the encoder of its conditions."""

    def encode(self, condition: Condition) -> Condition:
        """Encode observations or labels; leading B on every leaf of argument and result."""

    def __call__(self, x: Tensor, t: Tensor, d: Tensor, encoded: Condition) -> Tensor:
        """Predict from x (B, *S), times t (B,), step sizes d (B,) (0: the flow) and encoded conditions: (B, *S)."""


class Predictor(Protocol):
    """A network with everything but its point given: what objectives and samplers call."""

    def __call__(self, x: Tensor, t: Tensor, d: Tensor) -> Tensor:
        """Predict (B, *S) from x (B, *S), t (B,) and d (B,)."""


def take_rows(condition: Condition, rows: Tensor) -> Condition:
    """The given rows (index tensor) of every leaf."""
    if condition is None:
        return None
    if isinstance(condition, Tensor):
        return condition[rows]
    return {key: value[rows] for key, value in condition.items()}


def concatenate_rows(first: Condition, second: Condition) -> Condition:
    """Two conditions of the same kind, one below the other: 2B rows."""
    if isinstance(first, Tensor) and isinstance(second, Tensor):
        return torch.cat([first, second])
    if isinstance(first, Mapping) and isinstance(second, Mapping) and first.keys() == second.keys():
        return {key: torch.cat([first[key], second[key]]) for key in first}
    raise ValueError("the null condition must have the same keys as the condition")


def choose_rows(mask: Tensor, yes: Condition, no: Condition) -> Condition:
    """Row by row `yes` where mask (B,) is true, else `no`."""
    if isinstance(yes, Tensor) and isinstance(no, Tensor):
        return torch.where(mask.reshape(-1, *([1] * (no.ndim - 1))), yes, no)
    if isinstance(yes, Mapping) and isinstance(no, Mapping) and yes.keys() == no.keys():
        return {key: torch.where(mask.reshape(-1, *([1] * (no[key].ndim - 1))), yes[key], no[key]) for key in no}
    raise ValueError("the null condition must have the same keys as the condition")


class BoundNetwork:
    """A network bound to a batch's conditions, which it encodes once, at the first call.

    Args:
        network: the network.
        condition: raw observations or labels, leading B on every leaf.
        null: what stands for "no condition", like `condition`; needed by `drop` and `guided` only.
    """

    def __init__(self, network: Network, condition: Condition, null: Condition = None) -> None:
        self._network = network
        self._condition = condition
        self._null = null
        self._encoded: Condition = None
        self._is_encoded = False

    def __call__(self, x: Tensor, t: Tensor, d: Tensor) -> Tensor:
        """Predict (B, *S) at x (B, *S), t (B,), d (B,)."""
        return self._network(x, t, d, self.encoded())

    def encoded(self) -> Condition:
        """The encoded conditions; the encoder runs at the first call only."""
        if not self._is_encoded:
            self._encoded = self._network.encode(self._condition)
            self._is_encoded = True
        return self._encoded

    def rows(self, rows: Tensor) -> "BoundNetwork":
        """The same network bound to some rows (index tensor).

        Only those will be encoded; where all are encoded already, theirs is taken, with its gradient.
        """
        # conditions may be images: where they are encoded and no other will be, they need not be copied
        is_enough = self._is_encoded and self._null is None
        condition = None if is_enough else take_rows(self._condition, rows)
        bound = BoundNetwork(self._network, condition, take_rows(self._null, rows))
        if self._is_encoded:
            bound._encoded, bound._is_encoded = take_rows(self._encoded, rows), True
        return bound

    def drop(self, mask: Tensor) -> "BoundNetwork":
        """The same network with the null condition in the rows where mask (B,) is true."""
        self._require_null()
        return BoundNetwork(self._network, choose_rows(mask, self._null, self._condition), self._null)

    def guided(self, scale: float | Tensor) -> Predictor:
        """Classifier-free guidance (Ho & Salimans, arXiv 2207.12598): null + scale (conditional - null).

        One forward of 2B rows. `scale` is a number or one number per row (B,); 1 is no guidance.
        """
        self._require_null()
        both = BoundNetwork(self._network, concatenate_rows(self._condition, self._null))

        def predict(x: Tensor, t: Tensor, d: Tensor) -> Tensor:
            conditional, null = both(torch.cat([x, x]), torch.cat([t, t]), torch.cat([d, d])).chunk(2)
            weight = expand_rows(scale, x) if isinstance(scale, Tensor) else scale
            return null + weight * (conditional - null)

        return predict

    def _require_null(self) -> None:
        if self._null is None:
            raise ValueError("condition dropout and guidance need a null condition, and none was given")
