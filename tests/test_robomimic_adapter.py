"""robomimic's rollouts with our policies and environments, and its policies in our evaluation."""

import json
import os
from collections import OrderedDict, defaultdict

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict
from small_policy import small_policy

import envs
from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.data.episodes import Episodes
from shortcut_policy.evaluation import evaluate
from shortcut_policy.policy import Policy

pytest.importorskip("robomimic", reason="robomimic is not installed (extra robomimic)")

from robomimic.algo import RolloutPolicy, algo_factory
from robomimic.config import config_factory
from robomimic.utils import obs_utils
from robomimic.utils.train_utils import rollout_with_stats, run_rollout, save_model

from shortcut_policy.robomimic_adapter import RobomimicAgent, RobomimicEnv, RobomimicPolicy, load_robomimic_policy

KEYS = {"position": 2, "angle": 1}


class Walk(gymnasium.Env):
    """The position follows the action; `log` keeps the actions of every seed."""

    observation_space = Dict({key: Box(-np.inf, np.inf, (dim,)) for key, dim in KEYS.items()})
    action_space = Box(-np.inf, np.inf, (2,))
    metadata = {"action_representation": "delta_pose"}  # noqa: RUF012

    def __init__(self, log=None, steps=9):
        self.log = defaultdict(list) if log is None else log
        self.length = steps

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.steps = seed, 0
        self.position = self.np_random.uniform(0, 512, 2)
        return self.observation(), {}

    def step(self, action):
        assert action.dtype == np.float32
        self.log[self.seed].append(action.copy())
        self.steps += 1
        self.position = 0.5 * self.position + 0.5 * action
        success = self.seed % 2 == 0 and self.steps == 2
        return self.observation(), float(self.steps), False, self.steps == self.length, {"is_success": success}

    def observation(self):
        return {"position": self.position.astype(np.float32), "angle": np.full(1, self.steps, np.float32)}


@pytest.fixture
def policy():
    return small_policy()


def agent_of(policy, slots, num_steps):
    from shortcut_policy.agent import PolicyAgent

    return PolicyAgent(policy, slots, num_steps)


def test_a_rollout_by_robomimic_has_the_actions_of_our_evaluation(policy):
    ours, theirs = defaultdict(list), defaultdict(list)
    evaluation = evaluate(
        agent_of(policy, 2, 2), lambda: Walk(ours), episodes=3, first_seed=7, slots=2, num_envs=2, max_steps=8
    )
    wrapped = RobomimicPolicy(policy, num_steps=2, first_seed=7, slots=2)
    environment = RobomimicEnv(Walk(theirs), first_seed=7)
    stats = [run_rollout(wrapped, environment, horizon=8) for _ in range(3)]
    assert theirs.keys() == ours.keys() == {7, 8, 9}
    for seed in ours:
        np.testing.assert_array_equal(theirs[seed], ours[seed])
    assert not np.array_equal(ours[7], ours[8])
    assert [row["Success_Rate"] for row in stats] == [episode.success for episode in evaluation.episodes] == [0, 1, 0]
    assert [row["Horizon"] for row in stats] == [8, 8, 8]
    assert stats[0]["Return"] == sum(range(1, 9))


def test_robomimics_statistics_of_several_episodes(policy):
    environment = RobomimicEnv(Walk(steps=4), first_seed=10)
    logs, _ = rollout_with_stats(RobomimicPolicy(policy, slots=2), {"walk": environment}, horizon=50, num_episodes=4)
    assert logs["walk"]["Success_Rate"] == 0.5
    assert logs["walk"]["Horizon"] == 4  # the environment says when it ends


def test_lift_in_mujoco_through_both_rollouts():
    pytest.importorskip("robosuite", reason="robosuite is not installed (extra robosuite)")
    rng = np.random.default_rng(0)
    dims = {"object": 10, "robot0_eef_pos": 3, "robot0_eef_quat": 4, "robot0_gripper_qpos": 2}
    demonstrations = Episodes(
        {key: rng.standard_normal((40, dim), np.float32) for key, dim in dims.items()},
        rng.uniform(-1, 1, (40, 7)).astype(np.float32),
        np.array([20, 40]),
        "random numbers",
        action_codec=ActionCodec("delta_pose"),
    )
    network = {"name": "unet1d", "options": {"widths": [8, 16], "step_embedding_dim": 8}}
    policy = Policy.for_episodes(demonstrations, horizon=8, action_steps=3, network=network)
    recorded, seen = defaultdict(list), []

    class Recording(gymnasium.Wrapper):
        def step(self, action):
            recorded[len(seen)].append(np.array(action))
            return self.env.step(action)

    def make():
        seen.append("environment")
        return Recording(envs.make("lift", max_steps=6))

    evaluate(agent_of(policy, 3, 1), make, episodes=1, slots=3, num_envs=1, action_representation="delta_pose")
    environment = RobomimicEnv(make(), action_representation="delta_pose")
    results = run_rollout(RobomimicPolicy(policy, slots=3), environment, horizon=400)
    environment.env.close()
    assert results["Horizon"] == 6
    np.testing.assert_array_equal(recorded[1], recorded[2])
    assert len(recorded[1]) == 6
    assert environment.name == "shortcut_policy/Lift-v0"
    assert environment.action_dimension == 7


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"angle": None}, "no observation 'angle': it has position"),
        ({"position": np.zeros((3, 2))}, r"'position' must have shape \(2,\), got \(3, 2\)"),
        ({"position": np.zeros((1, 2))}, r"got \(1, 2\): give single observations without batch or stacked frames"),
    ],
)
def test_observations_that_do_not_fit_are_refused(policy, change, message):
    wrapped = RobomimicPolicy(policy)
    wrapped.start_episode()
    observation = {"position": np.zeros(2), "angle": np.zeros(1), **change}
    with pytest.raises(ValueError, match=message):
        wrapped({key: value for key, value in observation.items() if value is not None})


def test_other_observations_are_not_looked_at(policy):
    observation = {"position": np.ones(2), "angle": np.ones(1)}
    actions = []
    for extra in ({}, {"image": object()}):
        wrapped = RobomimicPolicy(policy)
        wrapped.start_episode()
        actions.append(wrapped({**observation, **extra}))
    np.testing.assert_array_equal(*actions)
    assert actions[0].shape == (2,)


def test_goals_and_calls_outside_an_episode_are_refused(policy):
    wrapped, observation = RobomimicPolicy(policy), {"position": np.zeros(2), "angle": np.zeros(1)}
    with pytest.raises(ValueError, match="start_episode"):
        wrapped(observation)
    wrapped.start_episode()
    with pytest.raises(ValueError, match="use_goals=False"):
        wrapped(observation, goal=observation)


def test_every_step_must_say_whether_the_task_is_done():
    class Silent(Walk):
        def step(self, action):
            return *super().step(action)[:-1], {"said": self.steps == 1}

    environment = RobomimicEnv(Silent(steps=2))
    environment.reset()
    with pytest.raises(ValueError, match=r"after every step .* 'is_success' .bool., and has said"):
        environment.step(np.zeros(2))


def test_an_environment_for_other_actions_is_refused():
    RobomimicEnv(Walk(), action_representation="delta_pose")
    with pytest.raises(ValueError, match="'absolute_pose', the environment takes 'delta_pose'"):
        RobomimicEnv(Walk(), action_representation="absolute_pose")


def robomimic_checkpoint(path, change=None, statistics=None, **gmm):
    """Write the checkpoint of a small untrained BC-RNN-GMM; `change` may edit the network first."""
    config = config_factory("bc")
    with config.values_unlocked():
        config.observation.modalities.obs.low_dim = list(KEYS)
        config.algo.actor_layer_dims = ()
        config.algo.rnn.enabled = config.algo.gmm.enabled = True
        config.algo.rnn.hidden_dim, config.algo.rnn.horizon = 8, 4
        config.algo.gmm.update(gmm)
        config.train.hdf5_normalize_obs = statistics is not None
    obs_utils.initialize_obs_utils_with_config(config)
    shapes = OrderedDict((key, [dim]) for key, dim in sorted(KEYS.items()))
    torch.manual_seed(0)
    model = algo_factory("bc", config, shapes, ac_dim=2, device=torch.device("cpu"))
    for parameter in model.nets.parameters():
        parameter.data *= 3  # an untrained network hardly looks at its input
    if change is not None:
        change(model.nets["policy"])
    save_model(model, config, {}, {"ac_dim": 2, "all_shapes": shapes}, path, statistics)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    return robomimic_checkpoint(tmp_path / "model.pth", num_modes=1)


def observations(slots, steps=11):
    rng = np.random.default_rng(1)
    return [{key: rng.standard_normal((slots, dim), np.float32) for key, dim in KEYS.items()} for _ in range(steps)]


def acted(agent, seeds, steps):
    agent.reset(seeds)
    return np.stack([agent.act(observation) for observation in steps])


def test_an_agent_acts_as_robomimics_own_rollout_policy(checkpoint):
    """With one mode both are its mean but for noise of 1e-4; 11 steps begin the hidden state anew twice."""
    policy = load_robomimic_policy(checkpoint)
    steps = observations(3)
    actions = acted(RobomimicAgent(policy, 3), [1, 2, 3], steps)
    policy.start_episode()
    theirs = np.stack([policy({key: value[1] for key, value in observation.items()}) for observation in steps])
    np.testing.assert_allclose(actions[:, 1], theirs, atol=2e-3)
    assert theirs.std(0).min() > 0.01  # or else this would say little


def test_slots_do_not_depend_on_each_other_nor_on_torchs_generator(tmp_path):
    policy = load_robomimic_policy(robomimic_checkpoint(tmp_path / "model.pth", low_noise_eval=False))
    agent, steps = RobomimicAgent(policy, 3), observations(3)
    state = torch.get_rng_state()
    together = acted(agent, [1, 2, 3], steps)
    assert torch.equal(torch.get_rng_state(), state)
    alone = [{key: value * [[0], [1], [0]] for key, value in observation.items()} for observation in steps]
    np.testing.assert_array_equal(acted(agent, [None, 2, None], alone)[:, 1], together[:, 1])
    assert not np.array_equal(acted(agent, [1, 4, 3], steps)[:, 1], together[:, 1])


def test_evaluation_does_not_depend_on_num_envs(checkpoint):
    policy = load_robomimic_policy(checkpoint)
    logs = []
    for num_envs in (1, 3):
        logs.append(defaultdict(list))
        agent = RobomimicAgent(policy, 4)
        evaluate(agent, lambda: Walk(logs[-1]), episodes=5, first_seed=0, slots=4, num_envs=num_envs)
    assert logs[0].keys() == logs[1].keys() == set(range(5))
    for seed in logs[0]:
        np.testing.assert_array_equal(logs[0][seed], logs[1][seed])


@pytest.mark.parametrize(("low_noise", "deviation"), [(True, 1e-4), (False, 0.1 + 1e-4)])
def test_actions_are_drawn_from_the_mixture(tmp_path, low_noise, deviation):
    """A network that ignores its input: modes at -0.5, 0, 0.5 with probabilities 0.2, 0, 0.8."""

    def fix(network):
        heads = dict(network.named_modules())["nets.decoder.nets"]
        for head in heads.values():
            torch.nn.init.zeros_(head.weight)
        heads["mean"].bias.data = torch.atanh(torch.tensor([-0.5, 0.0, 0.5])).repeat_interleave(2)
        heads["scale"].bias.data.fill_(np.log(np.expm1(0.1)))  # softplus of it is 0.1
        heads["logits"].bias.data = torch.tensor([0.2, 0.0, 0.8]).log().clamp(min=-100)

    path = robomimic_checkpoint(tmp_path / "model.pth", fix, num_modes=3, low_noise_eval=low_noise)
    slots = 4000
    (actions,) = acted(RobomimicAgent(load_robomimic_policy(path), slots), range(slots), observations(slots, 1))
    upper = actions[:, 0] > 0
    assert upper.mean() == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / slots))
    centre = np.where(upper, 0.5, -0.5)[:, None]
    assert (actions - centre).std() == pytest.approx(deviation, rel=0.05)
    assert (actions - centre).mean() == pytest.approx(0, abs=4 * deviation / np.sqrt(2 * slots))


def test_normalisation_statistics_are_applied(tmp_path, checkpoint):
    statistics = {key: {"mean": np.full((1, dim), 3.0), "std": np.full((1, dim), 2.0)} for key, dim in KEYS.items()}
    normalising = robomimic_checkpoint(tmp_path / "normalising.pth", statistics=statistics, num_modes=1)
    steps = observations(2)
    scaled = [{key: 2 * value + 3 for key, value in observation.items()} for observation in steps]
    expected = acted(RobomimicAgent(load_robomimic_policy(checkpoint), 2), [1, 2], steps)
    actions = acted(RobomimicAgent(load_robomimic_policy(normalising), 2), [1, 2], scaled)
    np.testing.assert_allclose(actions, expected, atol=1e-5)


def test_environments_that_do_not_fit_are_refused(checkpoint):
    agent = RobomimicAgent(load_robomimic_policy(checkpoint), 2)
    agent.reset([1, 2])
    with pytest.raises(ValueError, match="no observation 'angle', on which the robomimic policy was trained: it has"):
        agent.act({"position": np.zeros((2, 2))})
    with pytest.raises(ValueError, match=r"'angle' has shape \(3,\) in the environment, but .* trained on \(1,\)"):
        agent.act({"position": np.zeros((2, 2)), "angle": np.zeros((2, 3))})
    with pytest.raises(ValueError, match="expected 2 seeds"):
        agent.reset([1])


class Touch:
    """Its unpickling makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_nothing_in_a_checkpoint_is_executed(tmp_path, checkpoint):
    saved = torch.load(checkpoint, weights_only=True)
    torch.save({**saved, "extra": Touch(tmp_path / "touched")}, checkpoint)
    with pytest.raises(ValueError, match="without running code"):
        load_robomimic_policy(checkpoint)
    config = json.loads(saved["config"])
    mkdir = f"__import__('os').mkdir({str(tmp_path / 'touched')!r})"
    kwargs = {"backbone_class": mkdir, "backbone_kwargs": {}}
    config["observation"]["encoder"]["low_dim"].update(core_class="VisualCore", core_kwargs=kwargs)
    torch.save({**saved, "config": json.dumps(config)}, checkpoint)
    with pytest.raises(ValueError, match="'VisualCore'"):
        load_robomimic_policy(checkpoint)
    assert not (tmp_path / "touched").exists()


def test_other_files_are_refused(tmp_path, checkpoint):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_robomimic_policy(tmp_path / "nowhere.pth")
    saved = torch.load(checkpoint, weights_only=True)
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match="damaged"):
        load_robomimic_policy(checkpoint)
    torch.save({**saved, "algo_name": "bcq"}, checkpoint)
    with pytest.raises(ValueError, match="'bcq'"):
        load_robomimic_policy(checkpoint)
    torch.save(saved["model"], checkpoint)
    with pytest.raises(ValueError, match="it lacks"):
        load_robomimic_policy(checkpoint)
    config = json.loads(saved["config"])
    config["observation"]["modalities"]["obs"]["rgb"] = ["agentview_image"]
    torch.save({**saved, "config": json.dumps(config)}, checkpoint)
    with pytest.raises(ValueError, match="agentview_image"):
        load_robomimic_policy(checkpoint)


def test_a_loaded_policy_is_one_of_robomimics(checkpoint):
    assert isinstance(load_robomimic_policy(checkpoint), RolloutPolicy)
