"""A policy that answers several robots in one batch, none of which notices the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from shortcut_policy.policy import Policy
from shortcut_policy.realtime.requests import RequestSpec


@dataclass(frozen=True)
class SampleRequest:
    """One row of a batch.

    Attributes:
        observation: {key: (To, *shape)}, oldest first: float32, images uint8.
        noise: (n, T, A), what the chunk begins with and what the sampler adds on the way.
        committed: (k, E) float32, the actions that the chunk shall begin with; None for none.
    """

    observation: Mapping[str, np.ndarray]
    noise: Tensor
    committed: np.ndarray | None = None


class PaddedSampler:
    """Samples chunks for 1 to `rows` robots at a time.

    The batch has always `rows` rows, the unused ones being zeros: the computation does not depend on how many robots
    ask. A chunk is bit by bit the same whatever stands in the other rows; in another row of the batch, which a robot
    may get when several ask, float32 arithmetic may round its last digits otherwise.

    Args:
        policy: on the device on which it shall run.
        num_steps: network evaluations per chunk.
        rows: of every batch.

    Raises:
        ValueError: the policy cannot sample in so many steps, or has an observation that cannot be asked for.

    Attributes:
        spec: what a request must and may hold.
        horizon: T, actions in a chunk from now on.
    """

    def __init__(self, policy: Policy, num_steps: int, rows: int) -> None:
        config = policy.config
        self.spec = RequestSpec(
            config.observation_shapes,
            config.observation_steps,
            frozenset(config.image_shapes),
            config.prefix_steps,
            policy.action_dim,
        )
        self._policy = policy
        self._num_steps = num_steps
        self._rows = rows
        self._draws = 1 + policy.objective.sampler(num_steps).step_noises
        zeros = {key: value[0].numpy() for key, value in self._zeros().items()}
        (chunk,) = self([SampleRequest(zeros, torch.zeros(self._draws, *policy.chunk_shape))])  # the first one is slow
        self.horizon = len(chunk)

    def draw_noise(self, generator: torch.Generator) -> Tensor:
        """The noise of one row, (n, T, A); `generator` is on the CPU, so that a GPU gets the same numbers."""
        return torch.randn(self._draws, *self._policy.chunk_shape, generator=generator)

    def __call__(self, requests: Sequence[SampleRequest]) -> list[np.ndarray]:
        """A chunk (T, E) float32, in the data's units, for each of at most `rows` requests."""
        observation = self._zeros()
        noise = torch.zeros(self._draws, self._rows, *self._policy.chunk_shape)
        committed = torch.zeros(self._rows, self.spec.prefix_steps, self.spec.action_dim)
        lengths = torch.zeros(self._rows, dtype=torch.int64)
        for row, request in enumerate(requests):
            noise[:, row] = request.noise
            for key, value in request.observation.items():
                observation[key][row] = torch.from_numpy(value)
            if request.committed is not None:
                lengths[row] = len(request.committed)
                committed[row, : lengths[row]] = torch.from_numpy(request.committed)
        known = {"known_actions": committed, "known_steps": lengths} if self.spec.prefix_steps else {}
        chunks = self._policy.sample(observation, self._num_steps, noise=noise[0], step_noise=noise[1:], **known)
        return list(chunks[: len(requests)].float().cpu().numpy())

    def _zeros(self) -> dict[str, Tensor]:
        """A batch of observations in which nobody asks, {key: (rows, To, *shape)}."""
        return {
            key: torch.zeros(
                self._rows, self.spec.steps, *shape, dtype=torch.uint8 if key in self.spec.images else torch.float32
            )
            for key, shape in self.spec.shapes.items()
        }
