"""robomimic's trainer and our evaluation of what it trained, on random demonstrations of Lift."""

import json
import sys

import h5py
import numpy as np
import pytest
import torch

from shortcut_policy.results import read_result
from shortcut_policy.robomimic_run import RobomimicRun

pytest.importorskip("robomimic", reason="robomimic is not installed (extra robomimic)")
pytest.importorskip("robosuite", reason="robosuite is not installed (extra robosuite)")

TINY = ("steps=4", "epoch_steps=2", "batch_size=5", "rnn_hidden_dim=8", "rnn_layers=1", "device=cpu")


@pytest.fixture
def data(tmp_path):
    rng = np.random.default_rng(0)
    path = tmp_path / "lift.hdf5"
    dims = {"object": 10, "robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}
    with h5py.File(path, "w") as file:
        group = file.create_group("data")
        group.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1, "env_kwargs": {"robots": ["Panda"]}})
        for demo in range(2):
            group.create_group(f"demo_{demo}").attrs["num_samples"] = 8
            group[f"demo_{demo}/actions"] = rng.uniform(-1, 1, (8, 7))
            for key, dim in dims.items():
                group[f"demo_{demo}/obs/{key}"] = rng.standard_normal((8, dim))
        file["mask/one"] = np.array(["demo_1"], "S")
    return path


@pytest.fixture
def train(data, run_command, monkeypatch):
    def ask(prompt):
        raise AssertionError(f"robomimic asks: {prompt}")

    monkeypatch.setattr("builtins.input", ask)

    def run(output, *words):
        return run_command("train_robomimic", f"data.path={data}", *TINY, f"output={output}", *words)

    return run


def test_train_and_evaluate(tmp_path, train, run_command):
    folders = [tmp_path / f"run_{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        code, out, errors = train(folder, f"seed={seed}", "environment.options.max_steps=3", "environment.workers=0")
        assert code == 0, errors
        assert out.rstrip().endswith(str(folder / "model.pth"))
        assert len(list(folder.rglob("*.pth"))) == 1
    run = RobomimicRun.read(folders[0])
    assert run.environment.options["actions"] == "delta_pose"
    assert run.environment.options["env_args"]["env_kwargs"] == {"robots": ["Panda"]}
    assert (run.training.steps, run.training.seeds) == (4, (0,))
    # LSTM: 4 x 8 x (19 + 8) weights and two biases of 32; heads of 5 modes: mean and scale of 7 and a logit
    assert run.training.parameters == 32 * 27 + 64 + 9 * (35 + 35 + 5)

    words = (f"checkpoint=[{folders[0]},{folders[1]}]", "episodes=2", "latency_calls=2", "device=cpu")
    code, out, errors = run_command("eval_robomimic", *words, f"result={tmp_path / 'lift.json'}")
    assert code == 0, errors
    result = read_result(tmp_path / "lift.json")
    assert read_result(folders[0] / "evaluation" / "result.json") == result
    assert (result.name, result.objective, result.network) == ("lift_bc_rnn_gmm", "bc_rnn_gmm", "lstm 1x8")
    assert (result.training.seeds, result.training.steps) == ((0, 1), 4)
    assert (result.evaluation.episodes, result.evaluation.first_seed) == (2, 100_000)
    (row,) = result.rows
    assert (row.steps, row.per_seed, row.success) == (1, (0.0, 0.0), 0.0)  # 3 steps lift nothing
    assert "| 1 | **0.000**" in out

    code, _, errors = run_command("eval_robomimic", *words)
    assert (code, errors.count("\n")) == (2, 1)
    assert "overwrite=true" in errors
    before = sorted(folders[0].rglob("*"))
    code, _, errors = train(folders[0])
    assert (code, errors.count("\n")) == (2, 1)
    assert "is not empty" in errors
    assert sorted(folders[0].rglob("*")) == before


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (["steps=5"], "steps=5"),
        (["algorithm=bcq"], "bcq"),
        (["batch_size=17"], "16 steps"),
        (["data.filter_key=one", "batch_size=9"], "8 steps"),
        (["data.filter_key=two"], "two"),
        (["data.path=nowhere.hdf5"], "nowhere.hdf5"),
        (["+data.observations.force={}"], "force"),
        (["data.observations.object={array: /states}"], "data.observations.object"),
        (["task=pusht"], "data.format=zarr"),
        (["data.symmetries=[{name: m, observations: {}, action: {matrix: [[1]]}}]"], "data.symmetries cannot be used"),
        (["gmm_min_std=0"], "gmm_min_std must be positive, got 0"),
        (["environment.name=lfit"], "lfit"),
    ],
)
def test_wrong_values_get_one_sentence(tmp_path, train, words, quoted):
    code, _, errors = train(tmp_path / "run", *words)
    assert code == 2
    assert quoted in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_data_that_robomimic_cannot_read_are_refused(tmp_path, data, train):
    with h5py.File(data, "a") as file:
        del file["data/demo_1"].attrs["num_samples"]
    code, _, errors = train(tmp_path / "run")
    assert (code, errors.count("\n")) == (2, 1)
    assert "demo_1" in errors
    assert "num_samples" in errors


def test_an_interrupt_ends_the_training_with_a_sentence(tmp_path, train, run_command, monkeypatch):
    import robomimic.utils.train_utils

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(robomimic.utils.train_utils, "run_epoch", interrupt)
    code, _, errors = train(tmp_path / "run")
    assert code == 130
    assert errors.strip().endswith(f"remove {tmp_path / 'run'} and start again")
    code, _, errors = run_command("eval_robomimic", f"checkpoint={tmp_path / 'run'}")
    assert code == 2
    assert "no complete run" in errors


@pytest.mark.parametrize("name", ["train_robomimic", "eval_robomimic"])
def test_without_robomimic_the_extra_is_named(monkeypatch, train, run_command, name):
    monkeypatch.setitem(sys.modules, "robomimic.algo", None)
    monkeypatch.delitem(sys.modules, "shortcut_policy.robomimic_adapter", raising=False)
    code, _, errors = run_command(name, *(["checkpoint=x"] if name.startswith("eval") else []))
    assert (code, errors.count("\n")) == (2, 1)
    assert "`make .venv/.robomimic` installs it" in errors
    assert "C++ compiler" in errors


def test_the_number_of_threads_is_that_of_the_environment(tmp_path, train, monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    code, _, errors = train(tmp_path / "run")
    assert code == 0, errors
    assert asked == []


def test_a_training_that_diverges_says_so_in_a_sentence(tmp_path, train, monkeypatch):
    broken = torch.nn.Module.__call__

    def network(module, *inputs, **options):
        out = broken(module, *inputs, **options)
        return out * torch.nan if isinstance(module, torch.nn.Linear) else out

    monkeypatch.setattr(torch.nn.Module, "__call__", network)
    code, _, errors = train(tmp_path / "run")
    assert code != 0
    message = errors.strip().splitlines()[-1]
    assert "lower learning_rate than 0.0001" in message
    assert "tensor(" not in errors
