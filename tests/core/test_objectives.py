import pytest

from shortcut_policy.core.objectives import objective_class, objective_names
from shortcut_policy.core.objectives.shortcut import Shortcut


def test_objectives_are_found_by_name_and_their_phases_fill_the_training():
    assert objective_names() == tuple(sorted(objective_names()))
    assert {"flow_matching", "shortcut"} <= set(objective_names())
    assert objective_class("shortcut") is Shortcut
    for name in objective_names():
        assert sum(phase.steps for phase in objective_class(name)().phases(1000)) == 1000


@pytest.mark.parametrize("name", ["os", "base", "Shortcut"])
def test_unknown_names_are_quoted(name):
    with pytest.raises(ValueError, match=f"'{name}': known are .*flow_matching, "):
        objective_class(name)


@pytest.mark.parametrize("name", ["consistency_distillation", "progressive_distillation", "reflow"])
def test_a_fraction_that_leaves_teacher_or_student_nothing_is_refused(name):
    make = objective_class(name)
    for fraction, parts in ((0.999, "200 for the teacher and 0 for the student"), (0.001, "0 for the teacher and 200")):
        with pytest.raises(ValueError, match=f"teacher_fraction={fraction} divides 200 updates into {parts}"):
            make(teacher_fraction=fraction).phases(200)
