"""An objective's loss as a module: networks bound to a batch, in one forward."""

from collections.abc import Mapping

from torch import Tensor, nn

from shortcut_policy.core.network import BoundNetwork
from shortcut_policy.core.objectives.base import Batch, Draw, Mean, Networks, Objective


class LossModule(nn.Module):
    """The objective's loss as one forward, so that DistributedDataParallel sees the student's every use.

    Args:
        network: the student.
        target, teacher: the frozen copies, where the objective needs them.
    """

    def __init__(self, network: nn.Module, target: nn.Module | None, teacher: nn.Module | None) -> None:
        super().__init__()
        self.network = network
        self._frozen = (target, teacher)  # in a tuple: not submodules, so not synchronised

    def forward(self, objective: Objective, batch: Batch, draw: Draw) -> tuple[Tensor, Mapping[str, Mean]]:
        """The mean loss of the batch's rows, and the objective's metrics."""

        def bind(network: nn.Module | None) -> BoundNetwork | None:
            return None if network is None else BoundNetwork(network, batch.condition, batch.null_condition)

        target, teacher = self._frozen
        loss = objective.loss(Networks(bind(self.network), bind(target), bind(teacher)), batch, draw)
        return loss.per_row.mean(), loss.metrics
