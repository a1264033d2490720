"""What a run resumes from: `training_state/` beside the model, as safetensors and JSON.

Each process writes a file of its own where weights are divided among processes (`sharding.py`); they are read by any
number of processes, each of which takes the rows that are its own.
"""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from shortcut_policy.training.distributed import Processes
from shortcut_policy.training.sharding import first_row, local


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        step: updates done.
        ema_updates: the counters of the averages: for evaluation and, where it is another one, for targets.
        best: the best value of the metric that is watched, if any was measured.
        seconds: time spent in the loop, measurements and checkpoints included, over all resumptions.
    """

    step: int = 0
    ema_updates: list[int] = field(default_factory=list)
    best: float | None = None
    seconds: float = 0.0


def save_state(
    folder: Path,
    progress: Progress,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    processes: Processes | None = None,
) -> None:
    """Write `folder`: weights and buffers of every module, the optimizer's moments, the progress.

    Args:
        modules: by name; "network" is the one that the optimizer updates.
        processes: those among which the modules are divided, each of which calls this; None where they are not.
    """
    folder.mkdir(exist_ok=True)
    tensors = {f"{name}/{key}": t for name, module in modules.items() for key, t in module.state_dict().items()}
    for key, parameter in modules["network"].named_parameters():
        for moment, value in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{moment}/{key}"] = value
    is_main = processes is None or processes.is_main
    own = {key: tensor for key, tensor in tensors.items() if is_main or local(tensor) is not tensor}
    offsets = {key: first_row(tensor) for key, tensor in own.items()}
    name = "tensors" if processes is None else f"tensors_{processes.rank + 1:05d}_of_{processes.count:05d}"
    # clone: safetensors refuses tensors that share memory
    parts = {key: local(tensor).detach().cpu().contiguous().clone() for key, tensor in own.items()}
    save_file(parts, folder / f"{name}.safetensors", {"first_rows": json.dumps(offsets)})
    if is_main:
        (folder / "progress.json").write_text(json.dumps(asdict(progress), indent=2) + "\n")


def load_state(folder: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> Progress:
    """Restore what `save_state` wrote.

    Raises:
        ValueError: the files are damaged or belong to another network.
    """
    try:
        progress = Progress(**json.loads((folder / "progress.json").read_text()))
        with _Files(folder) as files:
            places = {f"{name}/{key}": t for name, module in modules.items() for key, t in module.state_dict().items()}
            moments = sorted({key.split("/")[1] for key in files.keys if key.startswith("optimizer/")})
            for moment in moments:
                for key, parameter in modules["network"].named_parameters():
                    if not parameter.requires_grad:
                        continue  # frozen: it has no moments
                    name = f"optimizer/{moment}/{key}"
                    # the step counter of the fused AdamW lies with the parameter, as its moments do
                    is_counter = files.is_scalar(name)
                    place = (
                        torch.zeros((), device=local(parameter).device) if is_counter else torch.zeros_like(parameter)
                    )
                    optimizer.state[parameter][moment] = places[name] = place.detach()
            unknown = files.keys - places.keys()
            if unknown:
                raise KeyError(min(unknown))
            with torch.no_grad():
                for key, place in places.items():
                    local(place).copy_(files.read(key, place))
    except (OSError, SafetensorError, json.JSONDecodeError, TypeError, KeyError, RuntimeError, ValueError) as error:
        raise ValueError(f"{folder} cannot be resumed from ({error}): remove this checkpoint") from error
    return progress


class _Files:
    """The files of a state, open."""

    def __init__(self, folder: Path) -> None:
        self._paths = sorted(folder.glob("tensors*.safetensors"))
        if not self._paths:
            raise FileNotFoundError("there are no tensors")
        count = self._paths[0].stem.rpartition("_of_")[2]
        if count.isdigit() and int(count) != len(self._paths):
            raise FileNotFoundError(f"there are {len(self._paths)} of {int(count)} files of tensors")
        self._stack = ExitStack()
        self._parts: dict[str, list[tuple[int, Any]]] = {}

    def __enter__(self) -> Self:
        for path in self._paths:
            file = self._stack.enter_context(safe_open(path, "pt"))
            first_rows = json.loads((file.metadata() or {}).get("first_rows", "{}"))
            for key in file.keys():  # noqa: SIM118 - it is no mapping
                self._parts.setdefault(key, []).append((first_rows.get(key, 0), file))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def keys(self) -> set[str]:
        """Names of all tensors."""
        return set(self._parts)

    def is_scalar(self, key: str) -> bool:
        """Whether a tensor has no dimension."""
        return not self._parts[key][0][1].get_slice(key).get_shape()

    def read(self, key: str, place: Tensor) -> Tensor:
        """The rows of a tensor that belong to this process's part of `place`."""
        parts = self._parts[key]
        if not place.ndim:
            return parts[0][1].get_tensor(key)
        start = first_row(place)
        stop = start + len(local(place))
        pieces, rows = [], 0
        for first, file in sorted(parts, key=lambda part: part[0]):
            view = file.get_slice(key)
            shape = view.get_shape()
            if tuple(shape[1:]) != tuple(place.shape[1:]):
                raise ValueError(f"{key} has the shape {shape} there and {list(place.shape)} here")
            rows += shape[0]
            low, high = max(start, first), min(stop, first + shape[0])
            if low < high:
                pieces.append(view[low - first : high - first])
        if rows != place.shape[0]:
            raise ValueError(f"{key} has {rows} rows there and {place.shape[0]} here")
        return torch.cat(pieces) if pieces else local(place).new_empty(local(place).shape)
