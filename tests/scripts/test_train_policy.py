"""The training command: resumable to the bit, and clear about what is wrong."""

import json
import random
import runpy
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from safetensors.torch import load_file

import envs
from shortcut_policy import Policy

CONFIGS = Path(__file__).parents[2] / "configs"

TINY = (
    "network.widths=[8,16]",
    "trainer.batch_size=16",
    "trainer.progress=false",
    "trainer.log_every=5",
    "validation.every=10",
    "validation.windows=16",
    "validation.num_steps=[1,2]",
    "data.valid_fraction=0.25",
    "device=cpu",
)


@pytest.mark.parametrize("task", sorted(path.stem for path in (CONFIGS / "task").glob("*.yaml")))
def test_every_task_composes_and_sees_what_its_environment_shows(task, monkeypatch):
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    monkeypatch.syspath_prepend(str(CONFIGS.parent / "scripts"))
    script = runpy.run_path(str(CONFIGS.parent / "scripts" / "train_policy.py"))
    with initialize_config_dir(str(CONFIGS), version_base=None):
        values = OmegaConf.to_container(compose("train_policy", overrides=[f"task={task}"]))
    config = script["to_experiment"](values)
    assert config.task == task
    assert config.environment.name in envs.task_names()
    assert config.rollout.every == 0
    cameras = {f"{camera}_image" for camera in config.environment.options.get("cameras", ())}
    assert {key for key in config.data.observations if key.endswith("_image")} == cameras
    assert bool(cameras) == (task in ("lift_image", "can_image", "square_image"))


def lines_of(path):
    return path.read_text().count("\n") if path.exists() else 0


def last(output):
    return output / "checkpoints" / "last"


@pytest.mark.parametrize("objective", ["shortcut", "diffusion", "mean_flow"])
def test_a_transformer_takes_the_place_of_the_unet(tmp_path, demonstrations, run_command, objective):
    words = [f"data.path={demonstrations}", *TINY[1:], "network=transformer_tiny", "network.width=16"]
    words += [f"objective={objective}", "trainer.steps=2", f"output={tmp_path / 'run'}"]
    code, _, errors = run_command("train_policy", *words)
    assert code == 0, errors
    policy = Policy.from_pretrained(last(tmp_path / "run"))
    assert policy.config.network.name == "transformer"
    observation = {key: torch.zeros(3, 2, dim) for key, dim in policy.config.observation_dims.items()}
    assert policy.sample(observation, num_steps=2).shape == (3, 16, 2)


def test_a_run_killed_at_a_random_moment_ends_with_the_weights_of_one_that_was_not(
    tmp_path, demonstrations, run_command, start_command
):
    words = [f"data.path={demonstrations}", *TINY, "trainer.steps=150", "trainer.checkpoint_every=20"]
    words += ["validation.every=1000", "trainer.log_every=1"]
    assert run_command("train_policy", *words, f"output={tmp_path / 'whole'}")[0] == 0

    killed = tmp_path / "killed"
    moment = random.SystemRandom().randrange(1, 140)
    process = start_command("scripts/train_policy.py", *words, f"output={killed}")
    while lines_of(killed / "metrics.jsonl") < moment:
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (killed / "finished.json").exists()

    assert run_command("train_policy", *words, f"output={killed}")[0] == 0
    for file in ("model.safetensors", "training_state/tensors.safetensors"):
        one, two = load_file(last(tmp_path / "whole") / file), load_file(last(killed) / file)
        assert one.keys() == two.keys()
        for key in one:
            assert one[key].equal(two[key]), f"{key} differs after a kill at step {moment}"


@pytest.mark.parametrize("objective", [path.stem for path in sorted((CONFIGS / "objective").glob("*.yaml"))])
def test_every_objective_trains_samples_and_is_measured(tmp_path, demonstrations, run_command, objective):
    output = tmp_path / "run"
    words = (f"data.path={demonstrations}", f"objective={objective}", "trainer.steps=20", *TINY, f"output={output}")
    if objective == "shortcut_paper":  # it guides, which policies do not
        code, _, errors = run_command("train_policy", *words)
        assert code == 2
        assert "need a null condition" in errors
        words += ("objective.condition_dropout=0", "objective.bootstrap_guidance=1", f"output={tmp_path / 'again'}")
        output = tmp_path / "again"
    code, _, errors = run_command("train_policy", *words)
    assert code == 0, errors
    policy = Policy.from_pretrained(last(output))
    observation = {key: torch.zeros(3, 2, dim) for key, dim in policy.config.observation_dims.items()}
    for steps in (1, 4):
        assert policy.sample(observation, steps).isfinite().all()
        assert 1 <= policy.objective.sampler(steps).evaluations <= steps
    measured = json.loads((output / "metrics.jsonl").read_text().splitlines()[-1])
    assert {"valid/action_error_1_steps", "valid/action_error_2_steps"} <= measured.keys()
    assert ("valid/loss" in measured) == ("teacher" not in policy.objective.needs)


def test_a_trained_flow_is_distilled(tmp_path, demonstrations, run_command):
    flow, output, data = tmp_path / "flow", tmp_path / "run", f"data.path={demonstrations}"
    tiny = [*TINY, "trainer.steps=4"]
    assert run_command("train_policy", data, "objective=flow_matching", *tiny, f"output={flow}")[0] == 0
    words = [data, "objective=consistency_distillation", "objective.teacher_fraction=0", f"teacher={flow}", *tiny]
    code, _, errors = run_command("train_policy", *words, f"output={output}")
    assert code == 0, errors
    made, given = (load_file(last(path) / "training_state" / "tensors.safetensors") for path in (output, flow))
    names = [name.removeprefix("ema/") for name in given if name.startswith("ema/")]
    assert all(torch.equal(made[f"teacher/{name}"], given[f"ema/{name}"]) for name in names)

    for change, quoted in (
        ("objective.sigma_data=0.1", "was trained with sigma_data=null, and objective.sigma_data is 0.1"),
        ("policy.horizon=8", "has horizon 16, and this run 8"),
        ("data.valid_fraction=0.5", "was trained on other data: its normalizer differs"),
        (f"teacher={output}", "was trained by consistency_distillation: it must be flow_matching"),
        ("teacher=null", "the objective needs a teacher and trains none"),
        ("objective.teacher_fraction=0.5", "say objective.teacher_fraction=0"),
        ("objective=regression", "an objective that needs none"),
    ):
        kept = [w for w in words if w.partition("=")[0] != change.partition("=")[0]]
        if change == "objective=regression":
            kept.remove("objective.teacher_fraction=0")
        code, _, errors = run_command("train_policy", *kept, change, f"output={tmp_path / 'other'}")
        assert code == 2
        assert quoted in errors
        assert errors.count("\n") == 1
        assert not (tmp_path / "other").exists()


def test_a_training_begins_with_the_weights_of_another(tmp_path, demonstrations, run_command):
    flow, output, data = tmp_path / "flow", tmp_path / "run", f"data.path={demonstrations}"
    tiny = [*TINY, "trainer.steps=4"]
    assert run_command("train_policy", data, "objective=flow_matching", *tiny, f"output={flow}")[0] == 0
    words = [
        data,
        "objective=shortcut",
        *tiny,
        f"init_from={flow}",
        "policy.noise_scale=0.5",
        "trainer.learning_rate=1e-12",
        f"output={output}",
    ]
    code, _, errors = run_command("train_policy", *words)
    assert code == 0, errors
    begun, given = (load_file(last(path) / "training_state" / "tensors.safetensors") for path in (output, flow))
    for name in (name for name in given if name.startswith("ema/")):
        torch.testing.assert_close(begun[name.replace("ema/", "network/")], given[name], rtol=0, atol=1e-9)
    late = ["objective=shortcut_late" if word == "objective=shortcut" else word for word in words]
    code, _, errors = run_command("train_policy", *late, f"output={tmp_path / 'other'}")
    assert (code, errors.count("\n")) == (2, 1)
    assert "was trained with sigma_data=null, and objective.sigma_data is 0.5" in errors
    assert "say objective.sigma_data=null objective.weighting=null" in errors
    told = ("objective.sigma_data=null", "objective.weighting=null", f"output={tmp_path / 'late'}")
    assert run_command("train_policy", *late, *told)[0] == 0
    code, _, errors = run_command("train_policy", *words, "network.widths=[16,16]", f"output={tmp_path / 'other'}")
    assert code == 2
    assert f"init_from={flow} has network" in errors
    assert errors.count("\n") == 1


def test_sigterm_saves_and_says_so(tmp_path, demonstrations, run_command, start_command):
    output = tmp_path / "run"
    words = [f"data.path={demonstrations}", "trainer.steps=100000", *TINY, f"output={output}"]
    process = start_command("scripts/train_policy.py", *words)
    while not (output / "metrics.jsonl").exists():
        time.sleep(0.01)
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command resumes" in errors
    assert last(output).exists()


def test_a_finished_run_has_all_that_its_user_needs(tmp_path, demonstrations, run_command):
    output = tmp_path / "run"
    words = [f"data.path={demonstrations}", "trainer.steps=20", *TINY, f"output={output}"]
    code, out, _ = run_command("train_policy", *words)
    assert code == 0
    assert str(last(output)) in out
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    names = set().union(*lines)
    assert {"valid/loss", "valid/action_error_1_steps", "valid/action_error_2_steps", "train/loss"} <= names
    assert (output / "checkpoints" / "best").exists()
    policy = Policy.from_pretrained(last(output))
    assert policy.config.metadata["environment"]["name"] == "pusht"

    before = (output / "metrics.jsonl").read_bytes()
    code, _, errors = run_command("train_policy", *words)
    assert code == 2
    assert "finished" in errors
    code, _, errors = run_command("train_policy", *words, "trainer.learning_rate=0.5")
    assert code == 2
    assert "trainer.learning_rate is 0.001 there and 0.5 here" in errors
    assert (output / "metrics.jsonl").read_bytes() == before


def test_rollouts_during_the_training(tmp_path, demonstrations, run_command):
    pytest.importorskip("gym_pusht")
    output = tmp_path / "run"
    words = [*TINY, "rollout.every=5", "rollout.episodes=2", "environment.options.max_steps=4", f"output={output}"]
    assert run_command("train_policy", f"data.path={demonstrations}", "trainer.steps=5", *words)[0] == 0
    values = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    assert any("rollout/score_1_steps" in line for line in values)


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (["task=pushT"], "'task/pushT': known are can, can_image, lift"),
        (["objective=shortcuts"], "'objective/shortcuts': known are "),
        (["trainer.stepz=1"], "trainer.stepz"),
        (["trainer.steps=many"], "'many'"),
        (["trainer.batch_size=0"], "0"),
        (["policy.horizon=10", "policy.action_steps=12"], "action_steps=12"),
        (["policy.horizon=15"], "15"),
        (["objective.levels=all"], "'all'"),
        (["objective.base_steps=10"], "10"),
        (["+objective.speed=2"], "objective.speed"),
        (["objective.base_steps=abc"], "'abc'"),
        (["objective.bootstrap_fraction=null"], "None"),
        (["validation.num_steps=[0]"], "[0]"),
        (["validation.windows=1"], "1 rows"),
        (["rollout.every=-1"], "-1"),
        (["rollout.every=5", "environment.name=pushL"], "'pushL'"),
        (["device=gpu"], "gpu"),
        (["device=cuda:9"], "cuda:9"),
        (["network.widths=[7,9]"], "[7, 9]"),
        (["data.observations.agent_pos.columns=[0,9]"], "9"),
        (["data.action.array=velocity"], "velocity"),
        (["data.valid_fraction=2.0"], "2.0"),
    ],
)
def test_wrong_values_get_one_sentence(tmp_path, demonstrations, run_command, words, quoted):
    output = tmp_path / "run"
    code, _, errors = run_command("train_policy", f"data.path={demonstrations}", *TINY, *words, f"output={output}")
    assert code == 2
    assert quoted in errors
    assert errors.count("\n") == 1
    assert errors.startswith("error: ")
    assert not output.exists()


def test_a_task_file_that_hydra_nests_gets_one_sentence(tmp_path, run_command):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("task_name: mine\n")
    code, _, errors = run_command("train_policy", "--config-dir", str(tmp_path), "task=mine")
    assert (code, errors.count("\n")) == (2, 1)
    assert "task_name is missing: a file of the folder task/ has it, and begins with '# @package _global_'" in errors


def test_a_task_file_that_is_no_yaml_gets_one_sentence(tmp_path, run_command):
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "mine.yaml").write_text("# @package _global_\ntask_name: mine\ndata: path: mine.hdf5\n")
    code, _, errors = run_command("train_policy", "--config-dir", str(tmp_path), "task=mine")
    assert (code, errors.count("\n")) == (2, 1)
    assert 'mapping values are not allowed here in "' in errors
    assert 'mine.yaml", line 3' in errors


def spoil_nan(path):
    array = zarr.open(path, mode="r+")["data/state"]
    values = array[:]
    values[17, 2] = np.nan
    array[:] = values


def spoil_ends(path):
    zarr.open(path, mode="r+")["meta/episode_ends"][:] = np.array([30, 90, 60, 120])


def spoil_chunk(path):
    next(p for p in (path / "data" / "action").iterdir() if not p.name.startswith(".")).unlink()


def spoil_length(path):
    zarr.open(path, mode="r+")["data/action"].resize((100, 2))


@pytest.mark.parametrize(
    ("spoil", "quoted"),
    [(spoil_nan, "NaN"), (spoil_ends, "episode_ends"), (spoil_chunk, "chunk"), (spoil_length, "100")],
)
def test_damaged_data_gets_one_sentence(tmp_path, demonstrations, run_command, spoil, quoted):
    spoil(demonstrations)
    output = tmp_path / "run"
    code, _, errors = run_command("train_policy", f"data.path={demonstrations}", *TINY, f"output={output}")
    assert code == 2
    assert quoted.lower() in errors.lower()
    assert errors.count("\n") == 1
    assert not output.exists()


def test_missing_data_and_foreign_folders(tmp_path, demonstrations, run_command):
    code, _, errors = run_command("train_policy", f"data.path={tmp_path / 'nowhere'}", *TINY)
    assert code == 2
    assert "nowhere" in errors
    foreign = tmp_path / "photos"
    foreign.mkdir()
    (foreign / "cat.png").write_text("")
    code, _, errors = run_command("train_policy", f"data.path={demonstrations}", *TINY, f"output={foreign}")
    assert code == 2
    assert "photos" in errors
    assert [p.name for p in foreign.iterdir()] == ["cat.png"]


def test_a_damaged_training_state_is_named(tmp_path, demonstrations, run_command):
    output = tmp_path / "run"
    words = [f"data.path={demonstrations}", "trainer.steps=20", *TINY, f"output={output}"]
    assert run_command("train_policy", *words)[0] == 0
    (output / "finished.json").unlink()
    path = last(output) / "training_state" / "tensors.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    code, _, errors = run_command("train_policy", *words)
    assert code == 2
    assert "cannot be resumed from" in errors
