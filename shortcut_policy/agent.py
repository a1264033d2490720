"""A policy as the agent of an evaluation: one slot and one random generator per episode."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from shortcut_policy.chunking import RecedingHorizon, SampleChunk
from shortcut_policy.policy import Policy


class ActionQueue(Protocol):
    """Makes actions of chunks, in several slots; `RecedingHorizon` documents its methods."""

    def reset(self, mask: Tensor | None = None) -> None:
        """Forget slots."""
        ...

    def act(self, observation: Mapping[str, Tensor], sample: SampleChunk) -> Tensor:
        """The next action (B, A)."""
        ...


class PolicyAgent:
    """Acts in `slots` environments at once; what it does in one does not depend on the others.

    The noise of an episode comes from a generator seeded with the episode's seed, so that policies and step counts
    are compared on the same noise.

    Args:
        policy: on the device on which it shall run.
        slots: rows of every batch that the policy sees, used or not.
        num_steps: network evaluations per chunk.
        queue: when chunks are sampled, and how they become actions; by default the policy's receding horizon.
    """

    def __init__(self, policy: Policy, slots: int, num_steps: int, queue: ActionQueue | None = None) -> None:
        self._policy = policy
        self._slots = slots
        self._num_steps = num_steps
        self._generators: list[torch.Generator | None] = [None] * slots
        self._queue = queue or RecedingHorizon(policy.config.observation_steps, policy.config.action_steps)

    def reset(self, seeds: Sequence[int | None]) -> None:
        """Begin an episode in every slot with a seed; None marks an unused slot."""
        if len(seeds) != self._slots:
            raise ValueError(f"expected {self._slots} seeds, one per slot, got {len(seeds)}")
        self._generators = [None if seed is None else torch.Generator().manual_seed(seed) for seed in seeds]
        self._queue.reset()

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        """Actions (slots, A) for the newest observations {key: (slots, D) or (slots, H, W, C)}.

        Raises:
            ValueError: an observation is missing or not finite, or has another shape than the policy's.
        """
        missing = [key for key in self._policy.config.observation_shapes if key not in observation]
        if missing:
            raise ValueError(f"the environment has no observation {missing[0]!r}: it has {', '.join(observation)}")
        for key in self._policy.config.observation_dims:
            finite = np.isfinite(observation[key]).all(axis=-1)
            if not finite.all():
                # the policy would answer with NaN, which some simulators take for no action and score as a failure
                raise ValueError(
                    f"the environment's observation {key!r} is NaN or infinite in slot {finite.argmin()}: mend the "
                    "environment, a policy can make nothing of it"
                )
        return self._queue.act(self._policy.observation_tensors(observation), self._sample).cpu().numpy()

    def _sample(
        self,
        history: Mapping[str, Tensor],
        needed: Tensor,
        known_actions: Tensor | None = None,
        known_steps: Tensor | None = None,
    ) -> Tensor:
        draws = 1 + self._policy.objective.sampler(self._num_steps).step_noises
        noise = torch.zeros(draws, self._slots, *self._policy.chunk_shape)
        for slot, generator in enumerate(self._generators):
            if generator is not None and needed[slot]:
                noise[:, slot] = torch.randn(draws, *self._policy.chunk_shape, generator=generator)
        return self._policy.sample(
            history,
            self._num_steps,
            known_actions=known_actions,
            known_steps=known_steps,
            noise=noise[0],
            step_noise=noise[1:],
        )
