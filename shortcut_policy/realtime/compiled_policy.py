"""A policy made ready to answer in time: fixed shapes, static buffers, compiled or captured once."""

import copy
from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from shortcut_policy.action_prefix import ActionPrefix
from shortcut_policy.nn.matrix_convolutions import MatrixConv1d, MatrixConvTranspose1d, with_matrix_convolutions
from shortcut_policy.policy import Policy

MATRIX_BATCH = 8
"""The largest batch whose convolutions are compiled as matrix products on a CPU."""

Mode = Literal["eager", "inductor", "cuda_graph"]
Precision = Literal["fp32", "bf16"]


class CompiledPolicy:
    """Maps observations to chunks of actions as `Policy.sample` does, for one batch size and number of steps.

    All that it touches is allocated when it is made. On a GPU, observations and noise are copied from pinned host
    memory, and the chunk back into it; with "cuda_graph" that is one launch, copies, encoder and head together, and
    the only synchronisation is the wait for its end.

    Args:
        policy: on the device where it shall run; it is not changed, and later changes of it are not seen.
        num_steps: network evaluations.
        batch_size: B.
        mode: "eager" runs kernel by kernel; "inductor" compiles (`torch.compile`), weights and step sizes
            being constants, and on a CPU the convolutions of small batches as matrix products; "cuda_graph" captures
            what inductor makes.
        precision: of weights and matrix products; "bf16" keeps normalisation, the sinusoids of t and d, and
            integration in fp32.
        seed: of the noise where none is given.

    Attributes:
        network: the copy of the policy's that answers.

    Raises:
        ValueError: a value is unknown or out of range, or a graph is asked for where there is no GPU.
    """

    def __init__(
        self,
        policy: Policy,
        num_steps: int = 1,
        batch_size: int = 1,
        mode: Mode = "eager",
        precision: Precision = "fp32",
        seed: int = 0,
    ) -> None:
        for name, value, known in (("mode", mode, get_args(Mode)), ("precision", precision, get_args(Precision))):
            if value not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, got {value!r}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        device = policy.device
        if mode == "cuda_graph" and device.type != "cuda":
            raise ValueError(f"mode='cuda_graph' needs a GPU, and the policy is on {device}: say mode='inductor'")
        self.num_steps, self.batch_size, self.mode, self.precision = num_steps, batch_size, mode, precision
        self._device = device
        self._generator = torch.Generator().manual_seed(seed)
        frozen = copy.deepcopy(policy).eval().requires_grad_(False)
        if mode == "inductor" and device.type == "cpu" and batch_size <= MATRIX_BATCH:
            with_matrix_convolutions(frozen.network)
        if precision == "bf16":
            _to_bf16(frozen.network)

        config, pinned = policy.config, device.type == "cuda"
        self._host = {
            key: torch.zeros(
                batch_size,
                config.observation_steps,
                *shape,
                dtype=torch.uint8 if key in config.image_shapes else torch.float32,
                pin_memory=pinned,
            )
            for key, shape in config.observation_shapes.items()
        }
        self.network = frozen.network
        sampler = policy.objective.sampler(num_steps)
        draws = 1 + sampler.step_noises
        self._host_noise = torch.zeros(draws, batch_size, *policy.chunk_shape, pin_memory=pinned)
        self._host_prefix = (
            torch.zeros(batch_size, config.prefix_steps, policy.action_dim, pin_memory=pinned),
            torch.zeros(batch_size, dtype=torch.int64, pin_memory=pinned),
        )

        def answer(observation: Mapping[str, Tensor], noise: Tensor, known: Tensor, known_steps: Tensor) -> Tensor:
            prefix = ActionPrefix(known, known_steps) if config.prefix_steps else None
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16", cache_enabled=False):
                later = noise[1:] if draws > 1 else None
                return frozen.generate(observation, sampler, noise[0], later, prefix).float()

        if mode != "eager":
            answer = torch.compile(answer, fullgraph=True, dynamic=False, options={"freezing": True})
        self._answer = answer
        self._graph: torch.cuda.CUDAGraph | None = None
        self._prepare()

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """(n, B, T, A): the noise of a call, and that of every later step of a sampler that re-noises."""
        return tuple(self._host_noise.shape)

    def __call__(
        self,
        observation: Mapping[str, np.ndarray | Tensor],
        noise: np.ndarray | Tensor | None = None,
        known_actions: np.ndarray | Tensor | None = None,
    ) -> np.ndarray:
        """Sample chunks (B, T', E) in the data set's units for histories {key: (B, To, ...)} in host memory.

        Args:
            observation: as `Policy.sample` takes it; float64 becomes float32.
            noise: `noise_shape`, standard normal; drawn where it is not given.
            known_actions: (B, k, E), see `Policy.sample`.

        Returns:
            A new array.

        Raises:
            ValueError: an observation is missing or of another shape, images are no bytes, or more actions are known
                than the policy can continue.
        """
        for key, buffer in self._host.items():
            if key not in observation:
                raise ValueError(f"observation {key!r} is missing: the policy was trained on {', '.join(self._host)}")
            _fill(f"observation {key!r}", buffer, observation[key])
        if noise is None:
            self._host_noise.normal_(generator=self._generator)
        else:
            _fill("noise", self._host_noise, noise)
        self._know(known_actions)
        return self._run().numpy().copy()

    def sample_chunk(self, history: Mapping[str, np.ndarray], committed: np.ndarray | None = None) -> np.ndarray:
        """What a control loop asks of a policy of one row: {key: (To, *shape)} -> (T', E); see `SampleChunk`."""
        rows = {key: history[key][None] for key in self._host if key in history}
        return self(rows, known_actions=None if committed is None else committed[None])[0]

    def _know(self, actions: np.ndarray | Tensor | None) -> None:
        known, steps = self._host_prefix
        given = known[:, :0] if actions is None else torch.as_tensor(actions)
        if given.ndim != 3 or given.shape[1] > known.shape[1]:
            most = tuple(known.shape)
            raise ValueError(f"known_actions must have at most the shape {most}, got {tuple(given.shape)}")
        _fill("known_actions", known[:, : given.shape[1]], given)
        steps.fill_(given.shape[1])

    @torch.no_grad()
    def _run(self) -> Tensor:
        """The chunk for what is in the host buffers, in host memory."""
        if self._device.type != "cuda":
            return self._answer(self._host, self._host_noise, *self._host_prefix)
        with torch.cuda.device(self._device):
            if self._graph is not None:
                self._graph.replay()
            else:
                self._to_device()
                self._host_chunk.copy_(self._answer(*self._static), non_blocking=True)
            torch.cuda.current_stream().synchronize()
        return self._host_chunk

    @torch.no_grad()
    def _prepare(self) -> None:
        """Allocate the buffers, compile and capture, so that the first call is like any other."""
        if self._device.type != "cuda":
            self._run()
            return
        with torch.cuda.device(self._device):  # graphs are captured on the current one
            self._prepare_gpu()

    def _prepare_gpu(self) -> None:
        observation = {key: buffer.to(self._device) for key, buffer in self._host.items()}
        self._static = (observation, *(buffer.to(self._device) for buffer in (self._host_noise, *self._host_prefix)))
        chunk = self._answer(*self._static)
        self._host_chunk = torch.empty(chunk.shape, pin_memory=True)
        if self.mode != "cuda_graph":
            self._run()
            return
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # libraries choose their kernels outside of the capture
            for _ in range(3):
                self._answer(*self._static)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._to_device()
            self._host_chunk.copy_(self._answer(*self._static), non_blocking=True)

    def _to_device(self) -> None:
        observation, *others = self._static
        for key, buffer in self._host.items():
            observation[key].copy_(buffer, non_blocking=True)
        for static, buffer in zip(others, (self._host_noise, *self._host_prefix), strict=True):
            static.copy_(buffer, non_blocking=True)


def action_difference(
    policy: Policy, compiled: CompiledPolicy, observations: Mapping[str, Tensor], seed: int = 0
) -> float:
    """Root mean square difference of the two's chunks, in the data set's units, from the same noise.

    Args:
        policy: the reference, in fp32.
        compiled: of it, in whatever mode and precision.
        observations: {key: (N, To, ...)}, N a multiple of the compiled batch size.
        seed: of the noise.

    Raises:
        ValueError: N is no multiple of the batch size.
    """
    rows, size = len(next(iter(observations.values()))), compiled.batch_size
    if rows == 0 or rows % size:
        raise ValueError(f"{rows} observations cannot be cut into batches of {size}: give a multiple of it")
    generator, squares = torch.Generator().manual_seed(seed), []
    for first in range(0, rows, size):
        some = {key: values[first : first + size] for key, values in observations.items()}
        noise = torch.randn(compiled.noise_shape, generator=generator)
        exact = policy.sample(
            some, compiled.num_steps, noise=noise[0], step_noise=noise[1:] if len(noise) > 1 else None
        )
        squares.append(np.square(exact.cpu().numpy() - compiled(some, noise)).mean())
    return float(np.sqrt(np.mean(squares)))


def _to_bf16(network: nn.Module) -> None:
    """Weights of linear maps and convolutions in bfloat16; autocast then has nothing to cast at every call."""
    for module in network.modules():
        if isinstance(
            module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, MatrixConv1d, MatrixConvTranspose1d)
        ):
            module.to(torch.bfloat16)


def _fill(name: str, buffer: Tensor, values: np.ndarray | Tensor) -> None:
    tensor = torch.as_tensor(values)
    if tensor.shape != buffer.shape:
        raise ValueError(f"{name} must have shape {tuple(buffer.shape)}, got {tuple(tensor.shape)}")
    if buffer.dtype == torch.uint8 and tensor.dtype != torch.uint8:
        raise ValueError(f"{name} must be uint8 in 0 ... 255, got {tensor.dtype}")
    buffer.copy_(tensor)
