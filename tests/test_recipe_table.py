"""The table of variants: what differs, and one step against many, episode by episode."""

from dataclasses import replace

from test_results import RESULT, ROW

from shortcut_policy.recipe_table import differing_options, recipe_table

FEW = replace(ROW, steps=1, mean=0.5, scores=((0.25, 0.75),))
MANY = replace(ROW, steps=16, mean=0.75, scores=((0.5, 1.0),))
TRAINING = replace(
    RESULT.training,
    options={"objective": {"options": {"base_steps": 16, "sigma_data": None}}, "trainer": {"log_every": 50}},
    held_out={"step_gap_1_steps": 16.44, "roughness_1_steps": 17.54, "roughness_demonstrated": 7.365},
)
PLAIN = replace(RESULT, training=TRAINING, rows=(FEW, MANY))


def with_options(**options):
    changed = {"objective": {"options": {"base_steps": 16, "sigma_data": None} | options}, "trainer": {"log_every": 25}}
    return replace(PLAIN, training=replace(TRAINING, options=changed))


def test_only_options_that_change_the_weights_are_named():
    assert differing_options(PLAIN, PLAIN) == "`shortcut`"
    assert differing_options(with_options(sigma_data=0.3), PLAIN) == "`sigma_data: 0.3`"
    assert differing_options(with_options(base_steps=8, weight=1), PLAIN) == "`base_steps: 8`, `weight: 1`"
    longer = replace(PLAIN, training=replace(TRAINING, steps=TRAINING.steps + 1))
    assert differing_options(longer, PLAIN) == f"`steps: {TRAINING.steps + 1}`"
    assert differing_options(replace(with_options(base_steps=8), objective="mean_flow"), PLAIN) == "`mean_flow`"


def test_every_variant_has_its_difference_to_the_most_steps_and_its_figures():
    other = replace(with_options(sigma_data=0.3), training=replace(TRAINING, held_out={}))
    lines = recipe_table([PLAIN, other]).splitlines()
    assert lines[0] == "| variant | 1 step | 16 steps | 1 - 16 steps | gap | roughness | residual |"
    assert lines[2].startswith("| `shortcut` | **0.50** [")
    assert lines[2].endswith("| -0.25 [-0.25, -0.25] | 16.4 | 17.5 |  |")
    assert lines[3].endswith("|  |  |  |"), "an older result has no figures of held-out windows"
    assert "demonstrated: 7.4" in lines[-1]
