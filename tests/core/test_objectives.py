import pytest

from shortcut_policy.core.objectives import make_objective, objective_names
from shortcut_policy.core.objectives.shortcut import Shortcut


def test_objectives_are_found_by_name():
    assert {"shortcut", "flow_matching"} <= set(objective_names())
    assert make_objective("shortcut", {"base_steps": 8}) == Shortcut(base_steps=8)
    for name in objective_names():
        objective = make_objective(name)
        assert sum(phase.steps for phase in objective.phases(1000)) == 1000


@pytest.mark.parametrize(
    ("name", "options", "quoted"), [("os", {}, "'os'"), ("base", {}, "'base'"), ("shortcut", {"step": 1}, "'step'")]
)
def test_unknown_names_and_options_are_quoted(name, options, quoted):
    with pytest.raises(ValueError, match=quoted):
        make_objective(name, options)
