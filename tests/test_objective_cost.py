import pytest

from shortcut_policy.core.objectives.consistency_distillation import ConsistencyDistillation
from shortcut_policy.core.objectives.flow_matching import FlowMatching
from shortcut_policy.core.objectives.mean_flow import MeanFlow
from shortcut_policy.core.objectives.progressive_distillation import ProgressiveDistillation
from shortcut_policy.core.objectives.reflow import Reflow
from shortcut_policy.core.objectives.shortcut import Shortcut
from shortcut_policy.objective_cost import evaluations_per_row


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (FlowMatching(), 1.0),
        (Shortcut(bootstrap_fraction=0.25), 1.5),  # the student, and two half steps on a quarter of the rows
        (Shortcut(bootstrap_fraction=0.5, bootstrap_start=0.6), 0.6 * 1 + 0.4 * 2),
        (MeanFlow(average_fraction=0.25), 1.25),
        (ConsistencyDistillation(teacher_fraction=0.5), 2.0),  # half of the time 1, half of the time 3
        (ProgressiveDistillation(teacher_fraction=0.2), 0.2 * 1 + 0.8 * 3),
        (Reflow(pair_steps=16, teacher_fraction=0.5), 9.0),  # half of the time 1, half of the time 17
        (
            ConsistencyDistillation(teacher_fraction=0.5, guidance=2.0, condition_dropout=0.1),
            2.5,
        ),  # the guided teacher is asked twice
    ],
)
def test_forward_passes_are_counted_with_the_teachers_training(objective, expected):
    assert evaluations_per_row(objective, 100) == pytest.approx(expected)
