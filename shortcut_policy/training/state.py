"""What a run resumes from: `training_state/` beside the model, as safetensors and JSON."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


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
    folder: Path, progress: Progress, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer
) -> None:
    """Write `folder`: weights and buffers of every module, the optimizer's moments, the progress.

    Args:
        modules: by name; "network" is the one that the optimizer updates.
    """
    folder.mkdir()
    tensors = {f"{name}/{key}": t for name, module in modules.items() for key, t in module.state_dict().items()}
    for key, parameter in modules["network"].named_parameters():
        for moment, value in optimizer.state[parameter].items():
            tensors[f"optimizer/{moment}/{key}"] = value
    # clone: safetensors refuses tensors that share memory
    save_file({k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}, folder / "tensors.safetensors")
    (folder / "progress.json").write_text(json.dumps(asdict(progress), indent=2) + "\n")


def load_state(folder: Path, modules: Mapping[str, nn.Module], optimizer: torch.optim.Optimizer) -> Progress:
    """Restore what `save_state` wrote.

    Raises:
        ValueError: the files are damaged or belong to another network.
    """
    try:
        tensors = load_file(folder / "tensors.safetensors")
        progress = Progress(**json.loads((folder / "progress.json").read_text()))
        for name, module in modules.items():
            module.load_state_dict(_below(tensors, f"{name}/"))
        for moment in sorted({key.split("/")[1] for key in tensors if key.startswith("optimizer/")}):
            values = _below(tensors, f"optimizer/{moment}/")
            for key, parameter in modules["network"].named_parameters():
                # the step counter of the fused AdamW lies with the parameter, as its moments do
                optimizer.state[parameter][moment] = values[key].to(parameter.device)
    except (OSError, SafetensorError, json.JSONDecodeError, TypeError, KeyError, RuntimeError) as error:
        raise ValueError(f"{folder} cannot be resumed from ({error}): remove this checkpoint") from error
    return progress


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
