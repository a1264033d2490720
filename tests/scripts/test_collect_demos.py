"""Experts' episodes become data sets: in the real simulator, interrupted and not, and with experts made up."""

import json
import multiprocessing
import shutil

import h5py
import numpy as np
import pytest

import envs
from envs.experts.episode import Episode
from shortcut_policy.collection import CollectionConfig, collect, format_report
from shortcut_policy.data.array_source import ArraySource
from shortcut_policy.data.env_args import check_codec, read_env_args, recorded_representation
from shortcut_policy.data.robomimic_hdf5 import read_robomimic

KEYS = ("object", "robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos")  # of configs/task/lift.yaml


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """(report, output, a copy of what was there when one of the two demos was finished)."""
    pytest.importorskip("robosuite")
    folder = tmp_path_factory.mktemp("collection")
    output, broken = folder / "lift.hdf5", folder / "broken.hdf5"

    def copy_parts(done, of):
        assert of == 2
        parts, copy = folder / "lift.hdf5.parts", folder / "broken.hdf5.parts"
        if len(list(parts.glob("demo_*"))) == 1 and not copy.exists():
            shutil.copytree(parts, copy)

    return collect(CollectionConfig("lift", 2, str(output), workers=2), copy_parts), output, broken


def test_the_data_set_is_in_robomimics_layout(collection):
    report, output, _ = collection
    assert report.seeds == (0, 1)
    with h5py.File(output) as file:
        data = file["data"]
        assert data.attrs["total"] == sum(report.steps)
        assert json.loads(data.attrs["expert"]).items() >= {"task": "lift", "noise_persistence": 0.9}.items()
        assert (data.attrs["success_rate"], data.attrs["attempts"], data.attrs["first_seed"]) == (1, 2, 0)
        assert {"collected_with_robosuite", "collected_with_mujoco"} <= set(data.attrs)
        assert sorted([*file["mask/train"], *file["mask/valid"]]) == [b"demo_0", b"demo_1"]
        for seed, steps in zip(report.seeds, report.steps, strict=True):
            demo = data[f"demo_{seed}"]
            assert (demo.attrs["seed"], demo.attrs["steps"], demo.attrs["num_samples"]) == (seed, steps, steps)
            assert demo.attrs["way"] in ("turn_left", "turn_right")
            assert demo["actions"].shape == demo["actions_abs"].shape == (steps, 7)
            assert demo["obs/object"].shape == (steps, 10)
            assert {values.dtype for values in demo["obs"].values()} == {np.dtype(np.float32)}
            np.testing.assert_allclose(demo["obs/cube_pos"][0], demo["states"][0, 10:13], atol=1e-6)
            assert demo["rewards"][:].tolist() == demo["dones"][:].tolist() == [0] * (steps - 6) + [1] * 6


def test_the_environment_is_built_again_from_the_file(collection):
    """And there the absolute actions do the task open loop."""
    _, output, _ = collection
    args = read_env_args(output)
    assert recorded_representation(args, "actions") == "delta_pose"
    env = envs.make("lift", env_args=vars(args), actions="absolute_pose").unwrapped
    with h5py.File(output) as file:
        demo = file["data/demo_1"]
        observation, _ = env.reset(seed=1)
        np.testing.assert_array_equal(env.state, demo["states"][0])
        assert env.model == demo.attrs["model_file"]
        for key, values in observation.items():
            np.testing.assert_array_equal(values, demo["obs"][key][0])
        succeeded = [env.step(action)[-1]["is_success"] for action in demo["actions_abs"][:].astype(np.float32)]
    assert succeeded[-1]
    env.close()


def test_both_readers_read_it(collection):
    _, output, _ = collection
    episodes = read_robomimic(output, {key: ArraySource(key) for key in KEYS}, ArraySource("actions_abs"))
    assert episodes.names == ("demo_0", "demo_1")
    check_codec(read_env_args(output), "actions_abs", "absolute_pose", episodes.actions)
    pytest.importorskip("robomimic")
    import robomimic.utils.obs_utils as obs_utils
    from robomimic.utils.dataset import SequenceDataset

    obs_utils.initialize_obs_modality_mapping_from_dict({"low_dim": list(KEYS)})
    theirs = SequenceDataset(
        str(output), list(KEYS), ["actions_abs", "dones"], seq_length=10, load_next_obs=False, hdf5_cache_mode=None
    )
    assert len(theirs) == len(episodes.actions)
    np.testing.assert_array_equal(theirs[0]["obs"]["object"], episodes.observations["object"][:10])
    np.testing.assert_array_equal(theirs[0]["actions_abs"].astype(np.float32), episodes.actions[:10])


def test_an_interrupted_collection_goes_on_and_ends_the_same(collection, run_command):
    _, output, broken = collection
    words = ("task=lift", "episodes=2", f"output={broken}", "workers=1")
    assert len(list(broken.with_name("broken.hdf5.parts").glob("demo_*"))) == 1
    code, _, errors = run_command("collect_demos", *words, "camera_size=96")
    assert code == 2
    assert "camera_size is 84 there and 96 here" in errors
    code, out, errors = run_command("collect_demos", *words)
    assert code == 0, errors
    assert "Lift: 2 of 2 attempts succeeded (100%)" in out
    assert broken.read_bytes() == output.read_bytes()
    assert not broken.with_name("broken.hdf5.parts").exists()
    assert multiprocessing.active_children() == []

    code, _, errors = run_command("collect_demos", *words)
    assert code == 2
    assert "broken.hdf5 exists" in errors
    assert broken.read_bytes() == output.read_bytes()


def made_up(seed, success, way="here"):
    """An episode of `seed + 1` steps."""
    steps = seed + 1
    return Episode(
        way=way,
        success=success,
        model="<mujoco/>",
        states=np.zeros((steps, 3)),
        observations={
            "robot0_eef_pos": np.full((steps, 3), seed, np.float32),
            "robot0_eef_quat": np.tile(np.float32((0, 0, 0, 1)), (steps, 1)),
            "agentview_image": np.zeros((steps, 4, 4, 3), np.uint8),
        },
        actions=np.zeros((steps, 7)),
        absolute_actions=np.zeros((steps, 7)),
        rewards=np.zeros(steps),
        successes=np.arange(steps) == steps - 1,
    )


@pytest.fixture
def attempts(monkeypatch):
    """Return a function that takes which seeds succeed, and in which order those asked for are done."""

    def fake(succeeds, order=lambda requests: requests):
        def answers(*_, requests, **__):
            for seed in order(requests):
                yield seed, made_up(seed, succeeds(seed), way="here" if seed % 4 else "there")

        monkeypatch.setattr("shortcut_policy.collection.answers", answers)

    return fake


def swapped(requests):
    """Pairs of requests, the second one done first."""
    for first in requests:
        yield next(requests)
        yield first


def test_the_first_successes_are_kept_whatever_the_order(attempts, tmp_path):
    attempts(lambda seed: seed % 3 != 2)
    in_order = collect(CollectionConfig("lift", 5, str(tmp_path / "one.hdf5"), first_seed=4))
    assert in_order.seeds == (4, 6, 7, 9, 10)
    assert (in_order.attempts, in_order.success_rate) == (7, 5 / 7)
    assert in_order.steps == (5, 7, 8, 10, 11)
    attempts(lambda seed: seed % 3 != 2, swapped)
    swapped_report = collect(CollectionConfig("lift", 5, str(tmp_path / "two.hdf5"), first_seed=4))
    assert swapped_report == in_order
    assert (tmp_path / "one.hdf5").read_bytes() == (tmp_path / "two.hdf5").read_bytes()
    text = format_report(in_order)
    assert "here                 4     80%" in text
    assert "there                1     20%" in text
    assert "of their variance (ways drawn by lot: 25%)" in text
    assert "Lift: 5 of 7 attempts succeeded (71%), in 8 steps on average (5 to 11)" in text


def test_images_and_their_cameras_are_written(attempts, tmp_path, monkeypatch):
    monkeypatch.setattr("shortcut_policy.collection.choose_backend", lambda: None)
    attempts(lambda seed: True)
    output = tmp_path / "can.hdf5"
    collect(CollectionConfig("can", 10, str(output), cameras=("agentview",), camera_size=4, valid_fraction=0.2))
    with h5py.File(output) as file:
        assert file["data/demo_9/obs/agentview_image"].dtype == np.uint8
        assert (len(file["mask/train"]), len(file["mask/valid"])) == (8, 2)
        args = json.loads(file["data"].attrs["env_args"])
    assert args["env_name"] == "PickPlaceCan"
    assert args["env_kwargs"]["camera_names"] == ["agentview"]
    assert args["env_kwargs"]["camera_heights"] == args["env_kwargs"]["camera_widths"] == [4]


def test_an_expert_that_always_fails(attempts, tmp_path):
    attempts(lambda seed: False)
    with pytest.raises(RuntimeError, match="failed on 100 seeds"):
        collect(CollectionConfig("lift", 5, str(tmp_path / "lift.hdf5")))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stop", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "stopped: the same command goes on with {}\n"),
        (
            ChildProcessError("expert worker 0 died"),
            1,
            "error: expert worker 0 died; the same command goes on with {}\n",
        ),
    ],
)
def test_what_interrupts_says_how_to_go_on(stop, code, said, attempts, tmp_path, run_command):
    def order(requests):
        yield next(requests)
        raise stop

    attempts(lambda seed: True, order)
    output = tmp_path / "lift.hdf5"
    assert run_command("collect_demos", "task=lift", "episodes=3", f"output={output}") == (
        code,
        "",
        said.format(output),
    )
    assert [path.name for path in tmp_path.iterdir()] == ["lift.hdf5.parts"]
    attempts(lambda seed: seed > 0)  # the first is there
    code, out, errors = run_command("collect_demos", "task=lift", "episodes=3", f"output={output}")
    assert code == 0, errors
    assert "3 of 3 attempts" in out


def test_mistakes(tmp_path, run_command, monkeypatch):
    output = tmp_path / "lift.hdf5"
    monkeypatch.setenv("MUJOCO_GL", "disabled")
    for words, quoted in [
        (("task=pusht",), "there is no expert for 'pusht': choose one of lift, can"),
        (("task=lyft",), "lyft"),
        (("episodes=0",), "episodes must be positive, got 0"),
        (("episodes=many",), "'many'"),
        (("workers=0",), "workers must be positive, got 0"),
        (("first_seed=-1",), "first_seed must not be negative, got -1"),
        (("valid_fraction=1",), "valid_fraction must lie in [0, 1), got 1.0"),
        (("cameras=[a,a]",), "cameras must differ, got ['a', 'a']"),
        (("cameras=[agentview]",), "MUJOCO_GL=disabled"),
        (("speed=3",), "speed"),
    ]:
        code, _, errors = run_command("collect_demos", "task=lift", "episodes=2", f"output={output}", *words)
        assert code == 2, words
        assert quoted in errors
        assert errors.startswith("error: ")
        assert errors.count("\n") == 1
        assert list(tmp_path.iterdir()) == []
    for words, missing in [(("task=lift", "episodes=2"), "output"), (("episodes=2", f"output={output}"), "task")]:
        code, _, errors = run_command("collect_demos", *words)
        assert code == 2
        assert missing in errors
        assert errors.startswith("error: ")
        assert errors.count("\n") == 1
