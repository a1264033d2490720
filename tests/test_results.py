import importlib.metadata
import json
from dataclasses import replace

import pytest

from shortcut_policy.provenance import installed_versions
from shortcut_policy.result_tables import commands_list, comparison_table, markdown_table, objective_table
from shortcut_policy.results import EvaluationSettings, Result, Row, Training, merge_seeds, read_result, write_result
from shortcut_policy.statistics import bootstrap_mean_interval

ROW = Row(
    steps=1,
    nfe=1,
    mean=0.8124,
    low=0.75,
    high=0.8666,
    success=0.605,
    success_low=0.51,
    success_high=0.694,
    per_seed=(0.8, 0.8248),
    latency_ms_p50=3.14,
    latency_ms_p99=12.06,
)
RESULT = Result(
    name="pusht_shortcut",
    task="pusht",
    objective="shortcut",
    network="unet_small",
    command="python scripts/eval_policy.py checkpoint=outputs/x",
    commit="0123abc",
    hardware="2 CPU cores",
    versions={"torch": "2.9.0"},
    training=Training(
        15_000, 2_160.0, (0, 1), 5_800_000, "python scripts/train_policy.py", "abc", "2 CPU cores", {"base_steps": 16}
    ),
    evaluation=EvaluationSettings(100, 100_000, "max_reward", "last, sha256 0123"),
    rows=(ROW, replace(ROW, steps=16, nfe=16, mean=0.95, low=0.9, high=1.0)),
)


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "results" / "pusht_shortcut.json"
    write_result(path, RESULT)
    assert read_result(path) == RESULT
    write_result(path, replace(RESULT, task="other"))
    assert read_result(path).task == "other"
    assert [file.name for file in path.parent.iterdir()] == [path.name], "no temporary file is left"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda values: values.pop("commit"), "option pusht.json: commit is missing"),
        (lambda values: values["rows"][1].pop("low"), r"option pusht.json: rows\[1\].low is missing"),
        (lambda values: values["rows"][0].update(mean="0.8"), r"pusht.json: rows\[0\].mean must be of type float"),
        (lambda values: values["training"].update(epochs=3), "unknown option pusht.json: training.epochs"),
    ],
)
def test_a_file_that_does_not_follow_the_schema_is_refused(tmp_path, change, message):
    path = tmp_path / "pusht.json"
    write_result(path, RESULT)
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        read_result(path)


def test_a_file_that_is_no_json_is_named(tmp_path):
    path = tmp_path / "pusht.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"pusht\.json"):
        read_result(path)


def test_the_table_shows_every_row_with_its_intervals():
    table = markdown_table(RESULT).splitlines()
    assert table[:4] == [
        "| steps | score (max_reward) | success rate | latency p50 | p99 |",
        "|---:|---:|---:|---:|---:|",
        "| 1 | **0.812** [0.750, 0.867] | 0.60 [0.51, 0.69] | 3.1 ms | 12.1 ms |",
        "| 16 | **0.950** [0.900, 1.000] | 0.60 [0.51, 0.69] | 3.1 ms | 12.1 ms |",
    ]
    assert "\n".join(table[4:]) == (
        "\n`unet_small` (5.8 M parameters), 15,000 updates in 36 min on 2 CPU cores; training seeds 0, 1, "
        "100 episodes each from seed 100000, checkpoint: last; 95 % intervals. Latency: one robot, on 2 CPU cores."
    )


def test_the_table_tells_of_reruns():
    rows = (ROW, replace(ROW, steps=2, reruns=3), replace(ROW, steps=4, reruns=1))
    sentence = "Episodes that ran again because a rollout worker died: 3 with 2 steps, 1 with 4 steps."
    assert markdown_table(replace(RESULT, rows=rows)).endswith(sentence)


def test_several_policies_stand_in_one_table():
    flow = replace(RESULT, task="lift", objective="flow_matching", rows=(replace(ROW, steps=4, success=0.25),))
    one = replace(RESULT, objective="bc_rnn_gmm", network="lstm", training=replace(RESULT.training, seeds=(0,)))
    table = comparison_table([RESULT, flow, one]).splitlines()
    assert table[:5] == [
        "| task | policy | 1 | 4 | 16 | one step | training |",
        "|:---|:---|---:|---:|---:|---:|:---|",
        "| pusht | shortcut | **0.60** [0.51, 0.69] |  | **0.60** [0.51, 0.69] | 3.1 ms "
        "| 2 seeds x 15,000 updates, unet_small |",
        "| lift | flow matching |  | **0.25** [0.51, 0.69] |  | 3.1 ms | 2 seeds x 15,000 updates, unet_small |",
        "| pusht | BC-RNN-GMM | **0.60** [0.51, 0.69] |  | **0.60** [0.51, 0.69] | 3.1 ms | 15,000 updates, lstm |",
    ]
    assert "100 episodes for every training seed, from seed 100000" in table[-1]
    fewer = replace(RESULT, task="transport", evaluation=replace(RESULT.evaluation, episodes=20))
    text = comparison_table([RESULT, flow, fewer])
    assert "100 episodes for every training seed (transport: 20), from seed 100000" in text


def seed_result(seed, scores):
    rows = tuple(
        replace(ROW, steps=n, scores=(scores,), successes=(tuple(score > 0.9 for score in scores),)) for n in (1, 2)
    )
    return replace(RESULT, rows=rows, training=replace(RESULT.training, seeds=(seed,), seconds=100.0 * (seed + 1)))


def test_seeds_evaluated_apart_are_merged_as_if_they_had_been_evaluated_together():
    apart = [seed_result(1, (0.2, 0.4, 1.0)), seed_result(0, (1.0, 0.8, 0.6))]
    merged = merge_seeds(apart, "python collect", "abc")
    assert merged.training.seeds == (0, 1)
    assert merged.training.seconds == 150
    assert (merged.command, merged.commit) == ("python collect", "abc")
    row = merged.rows[0]
    assert row.scores == ((1.0, 0.8, 0.6), (0.2, 0.4, 1.0))
    assert row.per_seed == (0.8, 0.5333)
    assert row.mean == pytest.approx(4 / 6, abs=1e-4)
    interval = bootstrap_mean_interval(row.scores)
    assert (row.low, row.high) == pytest.approx((interval.low, interval.high), abs=1e-4)
    assert row.success == pytest.approx(2 / 6, abs=1e-4)
    assert (row.success_low, row.success_high) == pytest.approx((0.0968, 0.7000), abs=1e-4)  # Wilson, 2 of 6


@pytest.mark.parametrize(
    ("change", "quoted"),
    [
        ({"task": "lift"}, "differ in their task: lift and pusht"),
        ({"network": "unet_dp"}, "differ in their network: unet_dp and unet_small"),
        ({"rows": (ROW,)}, "differ in their steps"),
    ],
)
def test_results_that_do_not_belong_together_are_not_merged(change, quoted):
    with pytest.raises(ValueError, match=quoted):
        merge_seeds([seed_result(0, (1.0,)), replace(seed_result(1, (1.0,)), **change)], "", "")
    with pytest.raises(ValueError, match="twice"):
        merge_seeds([seed_result(0, (1.0,)), seed_result(0, (1.0,))], "", "")
    old = replace(seed_result(0, (1.0,)), rows=(ROW, replace(ROW, steps=2)))
    with pytest.raises(ValueError, match="holds no single episodes"):
        merge_seeds([old], "", "")


def test_plain_lists_stand_on_one_line(tmp_path):
    path = tmp_path / "pusht.json"
    result = seed_result(0, (0.5, 0.25))
    write_result(path, result)
    assert "[ 0.5, 0.25 ]" in path.read_text()
    assert read_result(path) == result


def test_objectives_stand_in_the_papers_layout_with_their_cost():
    flow = replace(
        RESULT,
        objective="flow_matching",
        training=replace(RESULT.training, seconds=1_080.0, evaluations_per_row=1.0),
        command="python scripts/eval_policy.py checkpoint=outputs/y",
    )
    lines = objective_table([RESULT, flow]).splitlines()
    assert lines[:4] == [
        "| objective | 1 step | 16 steps | evaluations | time |",
        "|:---|---:|---:|---:|---:|",
        "| shortcut | **0.81** [0.75, 0.87] | **0.95** [0.90, 1.00] |  | 2.0x |",
        "| flow matching | **0.81** [0.75, 0.87] | **0.95** [0.90, 1.00] | 1 | 1.0x |",
    ]
    assert "unet_small (5.8 M), 15,000 updates, 2 training seeds x 100 episodes from seed 100000" in lines[-1]
    assert "`python scripts/eval_policy.py checkpoint=outputs/y`" in commands_list([RESULT, flow])


def test_times_of_other_hardware_are_not_compared():
    fast = replace(RESULT, name="pusht_comparison_fast", training=replace(RESULT.training, seconds=1.0, hardware="GPU"))
    lines = objective_table([fast, RESULT, RESULT]).splitlines()
    assert lines[2].endswith("|  |  |")
    assert lines[3].endswith("|  | 1.0x |")
    assert f"min on {RESULT.training.hardware})" in lines[-1]
    assert "of other hardware are left out" in lines[-1]


def test_files_from_before_reruns_are_read(tmp_path):
    path = tmp_path / "pusht.json"
    write_result(path, RESULT)
    values = json.loads(path.read_text())
    for row in values["rows"]:
        assert row.pop("reruns") == 0
    path.write_text(json.dumps(values))
    assert read_result(path) == RESULT


def test_versions_are_those_of_the_installed_packages():
    versions = installed_versions()
    assert versions["torch"] == importlib.metadata.version("torch")
    assert versions.keys() >= {"python", "torch", "numpy"}
