"""What no implementation of a network can be faster than: reading its weights once, or starting its kernels."""

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

_REPEATS = 50
_CHAIN = 1000  # empty kernels that are timed together


def weight_bytes(network: nn.Module) -> int:
    """Bytes of all parameters, each of which is read at least once in every evaluation."""
    return sum(parameter.numel() * parameter.element_size() for parameter in network.parameters())


def read_ms(size: int, device: torch.device) -> float:
    """Median milliseconds in which `size` bytes that were read before are read once: the measured bandwidth.

    Small networks stay in the caches between two calls, as the bytes that are read here do.
    """
    values = torch.ones(max(1, size // 4), device=device)
    return _median_ms(values.sum, device)


def empty_kernel_ms(device: torch.device) -> float:
    """Milliseconds from the start of a kernel that does nothing to that of the next; on a GPU, in a graph of many."""
    value = torch.zeros(1, device=device)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # graphs are captured on the current one

    def chain() -> None:
        for _ in range(_CHAIN):
            value.neg_()

    if device.type != "cuda":
        return _median_ms(chain, device) / _CHAIN
    chain()
    torch.cuda.synchronize(device)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        chain()
    return _median_ms(graph.replay, device) / _CHAIN


def count_kernels(function: Callable[[], object], device: torch.device) -> int:
    """Kernels that a call starts: on a GPU as its profiler sees them, on a CPU PyTorch's operations."""
    if device.type != "cuda":
        counter = _OperationCounter()
        with counter:
            function()
        return counter.count
    function()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        function()
        torch.cuda.synchronize(device)
    return sum(event.device_type == torch.autograd.DeviceType.CUDA for event in profile.events())


class _OperationCounter(TorchDispatchMode):
    """Counts operations that compute; views and metadata cost next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        is_free = func.is_view or func is torch.ops.aten._unsafe_view.default
        self.count += not (is_free or torch.Tag.nondeterministic_seeded in func.tags)
        return func(*args, **(kwargs or {}))


def _median_ms(function: Callable[[], object], device: torch.device) -> float:
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(1e3 * (time.perf_counter() - started))
    return statistics.median(times[_REPEATS // 5 :])
