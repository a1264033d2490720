"""What the server knows of one client: its last observations and its random generator."""

import numpy as np
import torch

from shortcut_policy.realtime.padded_sampler import PaddedSampler, SampleRequest
from shortcut_policy.realtime.requests import Request


class ClientState:
    """One client's episodes.

    The noise of an answer is the next one of the client's own generator. An episode that begins with a seed is
    therefore the same whatever was before, and the one that an evaluation runs with this seed; without seeds, the
    same requests get the same answers on every connection.

    Args:
        sampler: whose observations these are.
        seed: of the noise from the beginning until a reset gives another.
    """

    def __init__(self, sampler: PaddedSampler, seed: int) -> None:
        self._sampler = sampler
        self._steps = sampler.spec.steps
        self._generator = torch.Generator().manual_seed(seed)
        self._history: dict[str, np.ndarray] = {}

    def next(self, request: Request) -> SampleRequest | None:
        """Remember the request's observation; what must be sampled for it, or None where it only resets.

        The first observation of an episode stands for those before it, as in the training data.
        """
        if request.reset:
            self._history = {}
        if request.seed is not None:
            self._generator.manual_seed(request.seed)
        if not request.observation:
            return None
        for key, value in request.observation.items():
            if request.whole:
                self._history[key] = value
            elif key in self._history:
                self._history[key] = np.concatenate([self._history[key][1:], value[None]])  # (To, *shape)
            else:
                self._history[key] = np.repeat(value[None], self._steps, axis=0)
        return SampleRequest(dict(self._history), self._sampler.draw_noise(self._generator), request.committed)
