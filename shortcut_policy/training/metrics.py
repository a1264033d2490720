"""Metrics: their sums between two lines of the log; `metrics.jsonl` always, wandb or TensorBoard by choice."""

import json
import os
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from shortcut_policy.core.objectives.base import Batch, Mean
from shortcut_policy.training.distributed import Processes


class MetricLog(Protocol):
    """Where metrics go."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write the values after update `step`."""

    def close(self) -> None:
        """Flush and close."""


class JsonLines:
    """One JSON object a line; lines after `resumed_at` are dropped, so that a resumed run does not repeat itself."""

    def __init__(self, path: Path, resumed_at: int) -> None:
        kept = []
        if path.exists():
            for line in path.read_text().splitlines():
                try:
                    if json.loads(line)["step"] <= resumed_at:
                        kept.append(line + "\n")
                except (json.JSONDecodeError, KeyError):
                    break  # the line that a crash cut short
        temporary = path.with_suffix(".tmp")
        temporary.write_text("".join(kept))
        temporary.rename(path)
        self._file = path.open("a")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Append a line and flush it."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Wandb:
    """Weights & Biases; offline unless WANDB_MODE says otherwise, and one wandb run through all resumptions."""

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        try:
            import wandb
        except ImportError as error:
            raise ImportError("logger=wandb needs the extra 'wandb': pip install -e '.[wandb]'") from error
        os.environ.setdefault("WANDB_MODE", "offline")
        identity = folder / "wandb_id"  # not the folder's name: another folder may have had it
        if not identity.exists():
            identity.write_text(secrets.token_hex(4))
        self._run = wandb.init(
            project="shortcut-policy",
            name=folder.name,
            id=identity.read_text(),
            dir=folder,
            config=dict(config),
            resume="allow",
        )

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Log the values."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


class TensorBoard:
    """TensorBoard event files in `tensorboard/`."""

    def __init__(self, folder: Path, resumed_at: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError("logger=tensorboard needs its extra: pip install -e '.[tensorboard]'") from error
        self._writer = SummaryWriter(folder / "tensorboard", purge_step=resumed_at + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Write every value as a scalar."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


def open_logs(
    folder: Path, logger: Literal["none", "wandb", "tensorboard"], resumed_at: int, config: Mapping[str, Any]
) -> list[MetricLog]:
    """Open `metrics.jsonl` in the folder and the chosen logger."""
    logs: list[MetricLog] = [JsonLines(folder / "metrics.jsonl", resumed_at)]
    if logger == "wandb":
        logs.append(Wandb(folder, config))
    elif logger == "tensorboard":
        logs.append(TensorBoard(folder, resumed_at))
    return logs


@runtime_checkable
class CountsWaiting(Protocol):
    """A source of batches that knows how long its data was waited for, apart from what it makes of them.

    Attributes:
        waited_seconds: so far.
    """

    waited_seconds: float


def timed_batch(batches: Callable[[int, slice], Batch], step: int, rows: slice) -> tuple[Batch, float]:
    """A batch and the seconds spent waiting for its data: those that its source counts, or else the whole call."""
    if isinstance(batches, CountsWaiting):
        before = batches.waited_seconds
        batch = batches(step, rows)
        return batch, batches.waited_seconds - before
    started = time.perf_counter()
    batch = batches(step, rows)
    return batch, time.perf_counter() - started


class MetricWindow:
    """Sums since the last line of the log; they stay on the device until they are asked for.

    Args:
        processes: those whose sums are joined.
    """

    def __init__(self, processes: Processes) -> None:
        self._processes = processes
        self._sums: dict[str, Mean] = {}
        self._waited = 0.0
        self._updates = 0
        self._started = time.perf_counter()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added yet."""
        return self._updates == 0

    def add(self, metrics: Mapping[str, Mean], norm: Tensor, waited: float) -> None:
        """Add one update: its metrics, its gradient's norm, and the seconds it waited for data."""
        for name, part in {**metrics, "gradient_norm": Mean(norm, torch.ones_like(norm))}.items():
            self._sums[name] = self._sums[name] + part if name in self._sums else part
        self._waited += waited
        self._updates += 1

    def means(self, batch_size: int) -> dict[str, float]:
        """The means over all processes, the speed, and the share of the time spent waiting for data."""
        names = sorted(self._sums)
        sums = torch.stack([torch.stack([self._sums[n].total.float(), self._sums[n].count.float()]) for n in names])
        totals = zip(names, self._processes.sum(sums).tolist(), strict=True)
        means = {name: total / count for name, (total, count) in totals if count}
        seconds = time.perf_counter() - self._started
        return {
            **{f"train/{name}": mean for name, mean in means.items()},
            "train/samples_per_second": self._updates * batch_size / seconds,
            "train/data_wait_share": self._waited / seconds,
        }
