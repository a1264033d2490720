"""The table of variants: what differs, and one step against many, episode by episode."""

from dataclasses import replace

from test_results import RESULT, ROW

from shortcut_policy.recipe_table import differing_options, recipe_table
from shortcut_policy.result_tables import comparison_table, objective_label

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
    assert (
        differing_options(with_options(base_steps=8, levels="uniform"), PLAIN) == "`base_steps: 8`, `levels: uniform`"
    )
    longer = replace(PLAIN, training=replace(TRAINING, steps=TRAINING.steps + 1, seeds=(0,)))
    assert differing_options(longer, PLAIN) == f"`training seeds: 1`, `updates: {TRAINING.steps + 1}`"
    other = replace(longer, objective="mean_flow")
    assert differing_options(other, PLAIN) == f"`mean_flow`, `training seeds: 1`, `updates: {TRAINING.steps + 1}`"


def test_an_option_that_an_older_file_lacks_had_its_default():
    assert differing_options(with_options(weight_power=0.0, weighting=None), PLAIN) == "`shortcut`"
    assert differing_options(PLAIN, with_options(weight_power=1.0)) == "`weight_power: 0.0`"


def test_the_noise_of_the_evaluation_is_an_option_as_well():
    narrow = replace(PLAIN, evaluation=replace(PLAIN.evaluation, noise_scale=0.75), name="pusht_one_step_plain")
    assert differing_options(narrow, PLAIN) == "`noise_scale: 0.75`"
    assert objective_label(narrow) == "plain, noise x 0.75"
    assert "| shortcut, noise x 0.75 |" in comparison_table([PLAIN, narrow])
    interim = replace(TRAINING, options={**TRAINING.options, "noise_scale": 0.5})
    assert differing_options(replace(PLAIN, training=interim), PLAIN) == "`noise_scale: 0.5`"
    usual = replace(TRAINING, options={**TRAINING.options, "noise_scale": 1.0})
    assert differing_options(replace(PLAIN, training=usual), PLAIN) == "`shortcut`"


def test_each_is_compared_with_its_own_most_steps():
    hundred = replace(PLAIN, rows=(FEW, replace(MANY, steps=100, scores=((0.25, 1.0),))))
    lines = recipe_table([PLAIN, hundred]).splitlines()
    assert lines[0].startswith("| variant | 1 step | 16 steps | 100 steps | 1 - most steps |")
    assert "|  | -0.25 [-0.25, -0.25] |" in lines[2]
    assert "| -0.12 [" in lines[3]


def test_every_variant_has_its_difference_to_the_most_steps_and_its_figures():
    other = replace(with_options(sigma_data=0.3), training=replace(TRAINING, held_out={}, hardware="GPU"))
    older = replace(PLAIN, rows=(replace(FEW, scores=()), MANY))
    lines = recipe_table([PLAIN, PLAIN, other, older]).splitlines()
    assert lines[0] == "| variant | 1 step | 16 steps | 1 - 16 steps | gap | roughness | residual | time |"
    assert lines[2].startswith("| `shortcut` | **0.50** [")
    minutes = f"{TRAINING.seconds / 60:.0f} min"
    assert lines[2].endswith(f"| -0.25 [-0.25, -0.25] | 16.4 | 17.5 |  | {minutes} |")
    assert lines[4].endswith("|  |  |  |  |"), "an older result has no figures of held-out windows"
    assert lines[5].endswith(f"|  | 16.4 | 17.5 |  | {minutes} |"), "nor single episodes"
    assert "demonstrated: 7.4" in lines[-1]


def test_variants_have_names_of_their_own():
    named = [replace(PLAIN, name=f"pusht_one_step_{variant}") for variant in ("plain", "late")]
    assert [objective_label(result) for result in named] == ["plain", "late"]
