"""Weights divided among processes (FSDP2): every process keeps a part of the rows of every tensor."""

import math

from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from shortcut_policy.training.distributed import Processes


def shard(module: nn.Module, processes: Processes) -> None:
    """Divide the parameters of a module among the processes, in place; its parts of every `ModuleList` one by one.

    A part is gathered when it computes and given back afterwards, so that no process ever holds all of a large network.
    """
    mesh = init_device_mesh(processes.device.type, (processes.count,))
    for parts in reversed([*module.modules()]):  # what lies within others comes first, as FSDP2 wants it
        if isinstance(parts, nn.ModuleList):
            for part in parts:
                # a list within a list (the U-Net's stages) never computes as a whole: its own parts do
                if not isinstance(part, nn.ModuleList | nn.ModuleDict) and any(True for _ in part.parameters()):
                    fully_shard(part, mesh=mesh, reshard_after_forward=True)
    fully_shard(module, mesh=mesh, reshard_after_forward=True)
    if hasattr(module, "encode"):
        register_fsdp_forward_method(module, "encode")


def local(tensor: Tensor) -> Tensor:
    """This process's rows of a tensor, which share its memory; a tensor that is not divided as it is."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """All rows of a tensor, on every process: all must ask for it."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def first_row(tensor: Tensor) -> int:
    """The number, among all rows, of the first of `local(tensor)`."""
    if not isinstance(tensor, DTensor):
        return 0
    each = math.ceil(tensor.shape[0] / tensor.device_mesh.size())
    return min(tensor.device_mesh.get_local_rank() * each, tensor.shape[0])


def gather_into(target: nn.Module | None, source: nn.Module) -> None:
    """Copy the weights of a divided network into a whole one, where there is one; all processes must call it."""
    places = {} if target is None else target.state_dict()
    for name, tensor in source.state_dict().items():
        complete = whole(tensor)  # one after the other: never all at once on the device
        if name in places:
            places[name].copy_(complete)
