"""From a human recording to rollouts in MuJoCo: converted, trained on, evaluated, through both interfaces."""

import json

import numpy as np
import pytest

from shortcut_policy import Policy
from shortcut_policy.agent import PolicyAgent
from shortcut_policy.config import from_mapping
from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.evaluation import evaluate
from shortcut_policy.experiment import make_environment
from shortcut_policy.experiment_config import EnvironmentConfig

TINY = ("network.widths=[8,16]", "trainer.batch_size=16", "trainer.progress=false", "trainer.steps=3", "device=cpu")


@pytest.fixture(scope="module")
def trained(recording, tmp_path_factory):
    """The folder of a run on the converted recording."""
    pytest.importorskip("robosuite")
    from shortcut_policy.conversion import ConversionConfig, convert

    folder = tmp_path_factory.mktemp("lift")
    convert(ConversionConfig(str(recording), str(folder / "lift.hdf5"), workers=1))
    return folder


@pytest.fixture
def run(trained, run_command):
    """The trained run, trained at the first use."""
    words = ("task=lift", f"data.path={trained / 'lift.hdf5'}", "data.valid_fraction=0.5", *TINY)
    words += ("environment.options.max_steps=6", "environment.workers=1", f"output={trained / 'run'}")
    if not (trained / "run").exists():
        code, _, errors = run_command("train_policy", *words)
        assert code == 0, errors
    return trained / "run"


@pytest.mark.filterwarnings("ignore:Lift was recorded with robosuite 1.4.0")
def test_a_policy_trained_on_the_recording_rolls_out(run, run_command):
    policy = Policy.from_pretrained(run / "checkpoints/last")
    assert policy.config.action_codec == ActionCodec("absolute_pose")
    assert policy.chunk_shape == (16, 10)
    words = (f"checkpoint={run}", "steps=[1,2]", "episodes=2", "videos=0", "latency_calls=1")
    code, table, errors = run_command("eval_policy", *words)
    assert code == 0, errors
    assert "| 2 |" in table
    rows = json.loads((run / "evaluation/result.json").read_text())["rows"]
    assert [(row["steps"], row["success"]) for row in rows] == [(1, 0), (2, 0)]


@pytest.mark.filterwarnings("ignore:Lift was recorded with robosuite 1.4.0")
def test_robomimics_rollout_sees_the_same_actions(run):
    pytest.importorskip("robomimic", reason="robomimic is not installed (extra robomimic)")
    from robomimic.utils.train_utils import run_rollout

    from shortcut_policy.robomimic_adapter import RobomimicEnv, RobomimicPolicy

    policy = Policy.from_pretrained(run / "checkpoints/last")
    environment = from_mapping(EnvironmentConfig, policy.config.metadata["environment"])
    factory = make_environment(environment)
    ours, theirs = [], []

    class Listening(PolicyAgent):
        def act(self, observation):
            actions = super().act(observation)
            ours.append(actions[0].copy())
            return actions

    evaluate(Listening(policy, 1, 1), factory, episodes=1, slots=1, num_envs=1, action_representation="absolute_pose")
    env = factory()
    step = env.step
    env.step = lambda action: theirs.append(action.copy()) or step(action)
    wrapped = RobomimicEnv(env, action_representation="absolute_pose")
    run_rollout(RobomimicPolicy(policy, slots=1), wrapped, horizon=6)
    env.close()
    assert len(ours) == 6
    np.testing.assert_array_equal(theirs, ours)


@pytest.mark.filterwarnings("ignore:Lift was recorded with robosuite 1.4.0")
def test_delta_actions_in_an_absolute_environment_are_refused(run):
    policy = Policy.from_pretrained(run / "checkpoints/last")
    environment = from_mapping(EnvironmentConfig, policy.config.metadata["environment"])
    factory = make_environment(environment, actions="delta_pose")
    with pytest.raises(ValueError, match="'absolute_pose', the environment takes 'delta_pose'"):
        evaluate(
            PolicyAgent(policy, 1, 1),
            factory,
            episodes=1,
            slots=1,
            num_envs=1,
            action_representation=policy.config.action_codec.representation,
        )


@pytest.mark.filterwarnings("ignore:Lift was recorded with robosuite 1.4.0")
def test_other_mistakes_are_one_sentence(trained, run, run_command):
    data = f"data.path={trained / 'lift.hdf5'}"
    for words, quoted in (
        (("task=can", data), "env_args are of 'Lift', but the environment is 'PickPlaceCan'"),
        (("task=lift", data, "data.action.array=actions"), "are delta_pose actions, not absolute_pose"),
        (("task=transport", data), "has no obs/robot1_eef_pos"),
    ):
        code, _, errors = run_command("train_policy", *words, *TINY, f"output={trained / 'other'}")
        assert code == 2
        assert quoted in errors
        assert errors.count("\n") == 1
    assert not (trained / "other").exists()
