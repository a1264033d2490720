"""The evaluation command, on a policy that was hardly trained."""

import json

import pytest
from test_train_policy import TINY

from shortcut_policy.results import read_result

pytest.importorskip("gym_pusht")
pytest.importorskip("imageio_ffmpeg")


@pytest.fixture
def run_folder(tmp_path, demonstrations, run_command):
    output = tmp_path / "run"
    words = [f"data.path={demonstrations}", "trainer.steps=10", "environment.options.max_steps=12", *TINY]
    assert run_command("train_policy", *words, f"output={output}")[0] == 0
    return output


def test_result_table_plot_and_videos(tmp_path, run_folder, run_command):
    words = (f"checkpoint={run_folder}", "steps=[1,3]", "episodes=3", "videos=1", "latency_calls=3", "device=cpu")
    copy = tmp_path / "results" / "pusht.json"
    code, out, errors = run_command("eval_policy", *words, f"result={copy}")
    assert code == 0, errors
    folder = run_folder / "evaluation"
    result = read_result(folder / "result.json")
    assert read_result(copy) == result
    assert [row.steps for row in result.rows] == [1, 3]
    assert all(0 <= row.low <= row.mean <= row.high <= 1 for row in result.rows)
    assert result.training.seeds == (0,)
    assert result.training.steps == 10
    lines = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    (measured,) = [line for line in lines if "valid/step_gap_1_steps" in line]
    assert result.training.held_out["step_gap_1_steps"] == pytest.approx(measured["valid/step_gap_1_steps"], rel=1e-5)
    assert "roughness_demonstrated" in result.training.held_out
    assert result.evaluation.episodes == 3
    assert result.evaluation.first_seed == 100_000
    assert "widths=[8, 16]" in result.network
    assert "| 1 |" in out
    difference = result.rows[0].mean - result.rows[1].mean
    assert f"score(1) - score(3) = {difference:+.3f}" in out
    assert (folder / "score_and_latency.png").stat().st_size > 10_000
    assert len(list((folder / "videos").glob("seed100000_*.mp4"))) == 2

    before = copy.read_bytes()
    code, _, errors = run_command("eval_policy", *words, f"result={copy}")
    assert code == 2
    assert "overwrite=true" in errors
    assert copy.read_bytes() == before

    again = run_command("eval_policy", *words, "num_envs=1", "video_seeds=[100002]", f"output={tmp_path / 'again'}")
    assert again[0] == 0
    assert {path.name[:10] for path in (tmp_path / "again" / "videos").iterdir()} == {"seed100002"}
    repeated = read_result(tmp_path / "again" / "result.json")
    assert [row.per_seed for row in repeated.rows] == [row.per_seed for row in result.rows]

    narrow = run_command("eval_policy", *words, "noise_scale=0", "videos=0", f"output={tmp_path / 'narrow'}")
    assert narrow[0] == 0
    certain = read_result(tmp_path / "narrow" / "result.json")
    assert certain.evaluation.noise_scale == 0
    assert "noise_scale" not in certain.training.options
    assert not certain.training.held_out, "these are of other noise"
    assert "noise of standard deviation 0" in narrow[1]
    assert [row.scores for row in certain.rows] != [row.scores for row in result.rows]
    code, _, errors = run_command("eval_policy", *words, "noise_scale=-1", f"output={tmp_path / 'wrong'}")
    assert (code, errors.count("\n")) == (2, 1)
    assert "noise_scale must be 0 or more and finite, got -1" in errors

    over = run_command("eval_policy", *words[:-1], "overwrite=true", "video_seeds=[100001]")
    assert over[0] == 0
    assert {path.name[:10] for path in (folder / "videos").iterdir()} == {"seed100001"}, "older videos are gone"

    # older checkpoints recorded whether there are workers, not how many
    config = (run_folder / "checkpoints" / "last").resolve() / "config.json"
    document = json.loads(config.read_text())
    document["config"]["metadata"]["environment"]["workers"] = False
    config.write_text(json.dumps(document))
    for name, extra in (("older", ()), ("workers", ("workers=2",))):
        words = (f"checkpoint={run_folder}", "steps=[3]", "episodes=3", "videos=0", "latency_calls=1", "device=cpu")
        code, _, errors = run_command("eval_policy", *words, *extra, f"output={tmp_path / name}")
        assert code == 0, errors
        assert read_result(tmp_path / name / "result.json").rows[0].per_seed == result.rows[1].per_seed


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (["checkpoint=nowhere"], "nowhere"),
        (["checkpoint={run}", "steps=[0]"], "[0]"),
        (["checkpoint={run}", "episodes=0"], "0"),
        (["checkpoint={run}", "video_seeds=[7]"], "7"),
        (["checkpoint=[{run},{run}]"], "seed"),
    ],
)
def test_wrong_values_get_one_sentence(run_folder, run_command, words, quoted):
    code, _, errors = run_command("eval_policy", *[word.format(run=run_folder) for word in words])
    assert code == 2
    assert quoted in errors
    assert errors.count("\n") == 1


def test_seeds_that_were_trained_alike_are_evaluated_together(tmp_path, demonstrations, run_folder, run_command):
    words = [f"data.path={demonstrations}", "trainer.steps=10", "environment.options.max_steps=12", *TINY]
    for number, change in ((1, "trainer.log_every=2"), (2, "trainer.learning_rate=0.1")):
        output = f"output={tmp_path / str(number)}"
        assert run_command("train_policy", *words, f"seed={number}", change, output)[0] == 0
    common = ("steps=[1]", "episodes=2", "videos=0", "latency_calls=1", "device=cpu")
    code, _, errors = run_command("eval_policy", f"checkpoint=[{run_folder},{tmp_path / '1'}]", *common)
    assert code == 0, errors
    result = read_result(run_folder / "evaluation" / "result.json")
    assert result.training.seeds == (0, 1)
    assert [len(scores) for scores in result.rows[0].scores] == [2, 2]
    again = (f"checkpoint=[{run_folder},{tmp_path / '2'}]", "overwrite=true")
    code, _, errors = run_command("eval_policy", *again, *common)
    assert code == 2
    assert "not trained alike: learning_rate differs" in errors

    swap = "{matrix: [[0, -1], [-1, 0]], offset: [512, 512]}"
    maps = f"{{agent_pos: {swap}, block_pos: {swap}, block_rotation: {{matrix: [[0, 1], [1, 0]]}}}}"
    mirror = f"data.symmetries=[{{name: mirror, observations: {maps}, action: {swap}}}]"
    assert run_command("train_policy", *words, "seed=3", mirror, f"output={tmp_path / '3'}")[0] == 0
    both = f"checkpoint=[{run_folder},{tmp_path / '3'}]"
    code, _, errors = run_command("eval_policy", both, "overwrite=true", *common)
    assert (code, errors.count("not trained alike: data.symmetries differs")) == (2, 1)
    code, _, errors = run_command("eval_policy", f"checkpoint={tmp_path / '3'}", *common)
    assert code == 0, errors
    assert read_result(tmp_path / "3" / "evaluation" / "result.json").training.options["symmetries"] == "mirror"


def test_another_version_and_damaged_files_are_refused(run_folder, run_command):
    checkpoint = (run_folder / "checkpoints" / "last").resolve()
    document = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**document, "format_version": 99}))
    code, _, errors = run_command("eval_policy", f"checkpoint={checkpoint}")
    assert code == 2
    assert "99" in errors
    (checkpoint / "config.json").write_text(json.dumps(document))
    weights = bytearray((checkpoint / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (checkpoint / "model.safetensors").write_bytes(weights)
    code, _, errors = run_command("eval_policy", f"checkpoint={checkpoint}")
    assert code == 2
    assert "damaged" in errors
