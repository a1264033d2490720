"""The network that learns and its copies: EMAs, teacher, initial weights."""

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from shortcut_policy.core.objectives.base import Phase
from shortcut_policy.training.config import TrainerConfig
from shortcut_policy.training.distributed import Processes
from shortcut_policy.training.ema import Ema
from shortcut_policy.training.loss_module import LossModule
from shortcut_policy.training.sharding import gather_into, shard


class NetworkCopies:
    """The student and the copies of it that the phases of a training need.

    Args:
        student: what learns; with trainer.sharding=fsdp its parameters are divided among the processes, in place.
        phases: of the training.
        config: how to train.
        teacher: a network of the same shape, where the objective distils one and trains none itself.
        processes: those that train together.

    Attributes:
        ema: for evaluation.
        target: the EMA for bootstrap targets, which may be the same; None where no phase needs one.
        teacher: the frozen copy; None where no phase needs one.

    Raises:
        ValueError: a teacher is missing, or given where none is needed.
    """

    def __init__(
        self,
        student: nn.Module,
        phases: Sequence[Phase],
        config: TrainerConfig,
        teacher: nn.Module | None,
        processes: Processes,
    ) -> None:
        needs = frozenset().union(*(phase.objective.needs for phase in phases))
        self.student = student
        self.ema = Ema(student, config.ema)
        self.target: Ema | None = None
        if "target_ema" in needs:  # with equal settings both averages are the same, and one copy serves
            self.target = self.ema if config.target_ema == config.ema else Ema(student, config.target_ema)
        self.teacher: nn.Module | None = None
        if "teacher" in needs or teacher is not None:
            self.teacher = _frozen_teacher(student, phases, teacher)
        self._initial = copy.deepcopy(student) if any(p.student == "initial" for p in phases) else None
        self._processes = processes
        self._is_sharded = config.sharding == "fsdp" and processes.count > 1
        self._whole = copy.deepcopy(student).eval() if self._is_sharded and processes.is_main else None
        if self._is_sharded:
            for module in (*self.modules().values(), *((self._initial,) if self._initial else ())):
                shard(module, processes)

    @property
    def is_sharded(self) -> bool:
        """Whether the weights are divided among the processes."""
        return self._is_sharded

    def averages(self) -> list[Ema]:
        """The EMAs, each once."""
        return [self.ema] if self.target in (None, self.ema) else [self.ema, self.target]

    def modules(self) -> dict[str, nn.Module]:
        """All networks that are part of the state of a training, by name."""
        modules = {"network": self.student, "ema": self.ema.module}
        if len(self.averages()) == 2:
            assert self.target is not None
            modules["target_ema"] = self.target.module
        if self.teacher is not None:
            modules["teacher"] = self.teacher
        return modules

    def whole_ema(self) -> nn.Module:
        """The evaluation EMA as a network that the main process can use alone; all processes must ask for it."""
        if not self._is_sharded:
            return self.ema.module
        gather_into(self._whole, self.ema.module)
        return self.ema.module if self._whole is None else self._whole

    def begin(self, phase: Phase) -> bool:
        """Refresh the teacher and the student as the phase asks: whether the student became another network."""
        if phase.teacher != "keep" and self.teacher is not None:
            source = self.ema.module if phase.teacher == "ema" else self.student
            self.teacher.load_state_dict(source.state_dict())
        if phase.student == "keep":
            return False
        source = self._initial if phase.student == "initial" else self.teacher
        assert source is not None
        weights = source.state_dict()
        self.student.load_state_dict(weights)
        for average in self.averages():
            average.module.load_state_dict(weights)
            average.updates = 0
        return True

    def loss_module(self, config: TrainerConfig) -> nn.Module:
        """What computes the loss: compiled and synchronised over the processes as the configuration asks."""
        target = None if self.target is None else self.target.module
        if config.compile:
            for module in (self.student, target, self.teacher):
                if module is not None:
                    module.compile()
        is_exact = config.precision == "fp32"  # else cuDNN's convolutions would be in TF32 by default
        torch.set_float32_matmul_precision("highest" if is_exact else "high")
        torch.backends.cudnn.allow_tf32 = not is_exact
        loss_module = LossModule(self.student, target, self.teacher)
        if self._processes.count == 1 or self._is_sharded:
            return loss_module
        return DistributedDataParallel(loss_module, broadcast_buffers=False)


def _frozen_teacher(student: nn.Module, phases: Sequence[Phase], given: nn.Module | None) -> nn.Module:
    """The teacher as the first phase finds it, which is given if and only if no phase makes it."""
    using = (p for p in phases if p.teacher != "keep" or "teacher" in p.objective.needs)
    first = next(using, None)
    if first is None or first.teacher != "keep":
        if given is not None:
            raise ValueError(
                "a teacher was given to an objective that "
                + ("needs none" if first is None else "trains one: say objective.teacher_fraction=0")
            )
    elif given is None:
        raise ValueError(
            "the objective needs a teacher and trains none: give one (teacher=CHECKPOINT), or a share of the "
            "updates in which one is trained (objective.teacher_fraction=0.5)"
        )
    teacher = copy.deepcopy(student).eval().requires_grad_(False)
    if given is not None:
        teacher.load_state_dict(given.state_dict())
    return teacher
