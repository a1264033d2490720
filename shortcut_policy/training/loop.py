"""The training loop: one for robots and images.

    batches(step, rows) -> objective.draw -> objective.loss -> AdamW -> EMAs -> hooks -> checkpoint

Everything random is a pure function of (seed, step), so that a run that was killed and resumed ends with the weights
of one that was not.
"""

import math
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

from shortcut_policy.config import to_mapping
from shortcut_policy.core.objectives.base import Batch, Draw, Mean, Objective, Phase
from shortcut_policy.training.config import TrainerConfig
from shortcut_policy.training.distributed import Processes
from shortcut_policy.training.interruption import StopRequest, TrainingInterrupted
from shortcut_policy.training.metrics import MetricLog, MetricWindow, open_logs, timed_batch
from shortcut_policy.training.network_copies import NetworkCopies
from shortcut_policy.training.optimizer import learning_rate, make_optimizer
from shortcut_policy.training.run_folder import RunFolder
from shortcut_policy.training.seeding import derive_seed
from shortcut_policy.training.sharding import whole
from shortcut_policy.training.state import Progress, load_state, save_state

Batches = Callable[[int, slice], Batch]
"""(step, rows of the global batch) -> those rows, on the device."""


class TrainingDiverged(RuntimeError):
    """The loss or its gradient is not finite."""


@dataclass(frozen=True)
class Hook:
    """Something measured now and then during the training, and at its end.

    Attributes:
        every: in steps.
        measure: (step, evaluation EMA of the network) -> metrics by name.
    """

    every: int
    measure: Callable[[int, nn.Module], Mapping[str, float]]


class Trainer:
    """Trains a network by an objective.

    Args:
        network: what learns, on its device; it is trained in place.
        objective: what is minimised.
        batches: where rows come from; if it has `waited_seconds`, they are what counts as waiting for data.
        config: how to train.
        output: folder of the run.
        save_model: (folder, evaluation EMA) writes what inference needs.
        hooks: what is measured on the way.
        teacher: a network of the same shape, for an objective that distils one and trains none itself.
        processes: those that train together; by default this one alone, on the network's device.
        run_config: all that makes the run what it is, to be compared when it is resumed.

    Raises:
        ValueError: batch size, teacher or compilation do not fit; the message says what to do.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        batches: Batches,
        config: TrainerConfig,
        *,
        output: str | Path,
        save_model: Callable[[Path, nn.Module], None],
        hooks: Sequence[Hook] = (),
        teacher: nn.Module | None = None,
        processes: Processes | None = None,
        run_config: Mapping[str, Any] | None = None,
    ) -> None:
        self.network = network
        self.config = config
        self.folder = RunFolder(output)
        self.processes = processes or Processes(0, 1, next(network.parameters()).device)
        self.progress = Progress()
        self._batches = batches
        self._save_model = save_model
        self._hooks = hooks
        self._run_config = run_config or {"trainer": to_mapping(config), "objective": repr(objective)}
        self._phases = objective.phases(config.steps)
        if config.compile and any("jvp" in phase.objective.needs for phase in self._phases):
            raise ValueError("the objective differentiates the network in forward mode: say trainer.compile=false")
        self._copies = NetworkCopies(network, self._phases, config, teacher, self.processes)
        self._optimizer = make_optimizer(network, config)
        self._generator = torch.Generator(self.processes.device)
        self._loss_module = self._copies.loss_module(config)
        self._bad_step = torch.full((), -1, device=self.processes.device)
        share = config.accumulation * self.processes.count
        if config.batch_size % share:
            raise ValueError(
                f"trainer.batch_size={config.batch_size} cannot be cut into {config.accumulation} micro-batches on "
                f"each of {self.processes.count} processes: make it a multiple of {share}"
            )

    @property
    def ema_network(self) -> nn.Module:
        """The evaluation EMA."""
        return self._copies.ema.module

    def run(self) -> Progress:
        """Train to the end, from the last checkpoint if there is one.

        Raises:
            FileExistsError: the output folder holds something else.
            TrainingInterrupted: SIGTERM or SIGINT came; a checkpoint was written.
            TrainingDiverged: a loss or gradient that is not finite; the last good checkpoint is kept.
        """
        self._resume()
        self.network.train()
        logs: list[MetricLog] = []
        if self.processes.is_main:
            logs = open_logs(self.folder.path, self.config.logger, self.progress.step, self._run_config)
        try:
            with StopRequest(self.processes) as request:
                self._train(logs, request)
        finally:
            for log in logs:
                log.close()
        if self.processes.is_main:
            self.folder.finish({"steps": self.progress.step, "seconds": self.progress.seconds})
        return self.progress

    def update(self, phase: Phase, phase_step: int) -> tuple[dict[str, Mean], Tensor, float]:
        """One update: draw, loss, gradient, clipping, AdamW, EMAs.

        Returns:
            Metrics of this process's rows, the gradient's norm, and the seconds spent waiting for data.
        """
        config, step, processes = self.config, self.progress.step, self.processes
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate(phase_step, phase.steps, config)
        torch.manual_seed(derive_seed(config.seed, "dropout", step, processes.rank))
        self._generator.manual_seed(derive_seed(config.seed, "draw", step))

        metrics: dict[str, Mean] = {}
        draw, waited = None, 0.0
        size = config.batch_size // (config.accumulation * processes.count)
        for micro in range(config.accumulation):
            first = (micro * processes.count + processes.rank) * size
            rows = slice(first, first + size)
            batch, seconds = timed_batch(self._batches, 0 if config.overfit_one_batch else step, rows)
            waited += seconds
            if draw is None:
                shape = torch.Size((config.batch_size, *batch.data.shape[1:]))
                draw = phase.objective.draw(shape, phase_step / phase.steps, self._generator)
            self._accumulate(phase, batch, draw.rows(rows), metrics, is_last=micro == config.accumulation - 1)

        norm = self.descend()
        self._optimizer.zero_grad(set_to_none=True)
        self.average()
        # remembered on the device: asking every step whether it was finite would make the device wait
        self._bad_step = torch.where((self._bad_step < 0) & ~norm.isfinite(), step, self._bad_step)
        return metrics, norm, waited

    def descend(self) -> Tensor:
        """Clip the gradient and make a step of AdamW: the gradient's norm before clipping."""
        norm = whole(nn.utils.get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None]))
        if self.config.gradient_clip is not None:
            # the fused AdamW divides by this as it reads the gradient, so that clipping needs no pass of its own
            self._optimizer.grad_scale = (norm / self.config.gradient_clip).clamp(min=1.0)
        self._optimizer.step()
        return norm

    def average(self) -> None:
        """Let the EMAs follow the network."""
        for average in self._copies.averages():
            average.update(self.network)

    def phase_at(self, step: int) -> tuple[Phase, int]:
        """The phase in which update `step` lies, and its number within the phase."""
        for phase in self._phases:
            if step < phase.steps:
                return phase, step
            step -= phase.steps
        raise AssertionError("the phases are shorter than the training")

    def _accumulate(self, phase: Phase, batch: Batch, draw: Draw, metrics: dict[str, Mean], *, is_last: bool) -> None:
        """Add the gradient of one micro-batch, and its metrics."""
        device = self.processes.device
        if isinstance(self._loss_module, DistributedDataParallel):
            self._loss_module.require_backward_grad_sync = is_last
        elif isinstance(self.network, FSDPModule):
            self.network.set_requires_gradient_sync(is_last)
        # without the cache of casts: one made under no_grad (by an online teacher) would cut the student's gradient
        with torch.autocast(device.type, torch.bfloat16, enabled=self.config.precision == "bf16", cache_enabled=False):
            loss, parts = self._loss_module(phase.objective, batch, draw)
        (loss / self.config.accumulation).backward()
        rows = torch.full_like(loss, len(batch.data)).detach()
        for name, part in {**parts, "loss": Mean(loss.detach() * rows, rows)}.items():
            metrics[name] = metrics[name] + part if name in metrics else part

    def _train(self, logs: Sequence[MetricLog], request: StopRequest) -> None:
        config, progress = self.config, self.progress
        bar = tqdm(
            total=config.steps,
            initial=progress.step,
            unit="step",
            disable=not (config.progress and self.processes.is_main),
            mininterval=1.0,
        )
        window = MetricWindow(self.processes)
        before, started = progress.seconds, time.perf_counter()
        # the CPU computes as it is asked, so that looking at every step costs nothing there
        look_every = 1 if self.processes.device.type == "cpu" and self.processes.count == 1 else config.log_every
        with bar:
            while progress.step < config.steps:
                phase, phase_step = self.phase_at(progress.step)
                if phase_step == 0:
                    self._begin(phase)
                window.add(*self.update(phase, phase_step))
                progress.step += 1
                bar.update()

                step, is_end = progress.step, progress.step == config.steps
                if step % look_every == 0 or is_end:
                    self._check_finite()
                if step % config.log_every == 0 or is_end:
                    values = window.means(config.batch_size) | {
                        "train/learning_rate": self._optimizer.param_groups[0]["lr"]
                    }
                    bar.set_postfix_str(f"loss {values['train/loss']:.4f} {values['train/samples_per_second']:.0f}/s")
                    for log in logs:
                        log.write(step, values)
                    window = MetricWindow(self.processes)
                stop = request.agreed() if step % look_every == 0 else 0
                is_best = self._measure(step, is_end, logs)
                if is_best or stop or is_end or step % config.checkpoint_every == 0:
                    self._check_finite()
                    progress.seconds = before + time.perf_counter() - started
                    self._checkpoint(is_best)
                if window.is_empty:
                    window = MetricWindow(self.processes)  # measuring and saving are not part of the training's speed
                if stop and not is_end:
                    raise TrainingInterrupted(
                        f"{signal.Signals(stop).name} came; saved after step {step}: the same command resumes",
                        stop,
                    )

    def _measure(self, step: int, is_end: bool, logs: Sequence[MetricLog]) -> bool:
        """Run the hooks that are due; say whether the watched metric is the best so far."""
        values: dict[str, float] = {}
        due = [hook for hook in self._hooks if step % hook.every == 0 or is_end]
        if due:
            network = self._copies.whole_ema()
            if self.processes.is_main:
                for hook in due:
                    values.update(hook.measure(step, network))
            if values:
                for log in logs:
                    log.write(step, values)
        is_best = self._is_best(values)
        if due and self._copies.is_sharded:  # then all write the checkpoint of the best
            is_best = bool(self.processes.sum(torch.tensor(float(is_best), device=self.processes.device)))
        return is_best

    def _is_best(self, values: Mapping[str, float]) -> bool:
        watched = values.get(self.config.best_metric) if self.config.best_metric else None
        if watched is None or not math.isfinite(watched):
            return False
        best, sign = self.progress.best, 1.0 if self.config.best_mode == "min" else -1.0
        if best is not None and sign * watched >= sign * best:
            return False
        self.progress.best = watched
        return True

    def _begin(self, phase: Phase) -> None:
        """Refresh the teacher and the student as the phase asks."""
        if self._copies.begin(phase):
            self._optimizer = make_optimizer(self.network, self.config)
            self.progress.best = None  # the best of the teacher's phase is not the student's

    def _resume(self) -> None:
        if self.processes.is_main:
            self.folder.claim(self._run_config)
        self.processes.barrier()
        checkpoint = self.folder.claim(self._run_config)
        if checkpoint is None:
            return
        self.progress = load_state(checkpoint / "training_state", self._copies.modules(), self._optimizer)
        for average, updates in zip(self._copies.averages(), self.progress.ema_updates, strict=True):
            average.updates = updates

    def _checkpoint(self, is_best: bool) -> None:
        step, processes, copies = self.progress.step, self.processes, self._copies
        self.progress.ema_updates = [average.updates for average in copies.averages()]
        is_shared = copies.is_sharded
        if not is_shared and not processes.is_main:
            return
        # all write, or none: a checkpoint of this step may be there, from before the newest was removed by hand
        if is_shared:
            is_there = torch.tensor(float(processes.is_main and self.folder.has(step)), device=processes.device)
            is_shared = not processes.sum(is_there)

        def write(folder: Path) -> None:
            if is_shared:
                ema = copies.whole_ema()
                processes.barrier()  # the folder is there
            else:
                ema = copies.ema.module
            if processes.is_main:
                self._save_model(folder, ema)
            state = folder / "training_state"
            progress, modules = replace(self.progress), copies.modules()
            save_state(state, progress, modules, self._optimizer, processes if is_shared else None)
            if is_shared:
                processes.barrier()  # all files are there

        if processes.is_main:
            self.folder.save(step, write, is_best=is_best, keep=self.config.keep_checkpoints)
        elif is_shared:
            write(self.folder.unfinished(step))

    def _check_finite(self) -> None:
        bad = int(self._bad_step)
        if bad >= 0:
            last = self.folder.checkpoints / "last"
            kept = f"the last good checkpoint is {last}" if last.exists() else "no checkpoint had been written yet"
            raise TrainingDiverged(
                f"the gradient of step {bad} is not finite (loss NaN or infinite); {kept}: "
                "lower trainer.learning_rate or look at the data"
            )
