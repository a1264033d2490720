"""robosuite's tasks in the real simulator, without pictures unless `gl_backend` says so."""

import warnings

import gymnasium
import h5py
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import envs
from envs.robosuite import RobosuiteEnv

pytest.importorskip("robosuite")

OLD_CONTROLLER = {"type": "OSC_POSE", "kp": 150, "control_delta": True, "interpolation": None}


@pytest.fixture(scope="module")
def lift():
    env = envs.make("lift")
    yield env
    env.close()


@pytest.fixture(scope="module")
def transport():
    env = envs.make("transport")
    yield env
    env.close()


@pytest.fixture
def recording(real_data):
    """The first demonstration of the human recordings: its model, states and delta actions."""
    with h5py.File(real_data("robosuite_human/lift_panda_v1.4.0.hdf5")) as file:
        demo = file["data/demo_1"]
        return demo.attrs["model_file"], demo["states"][:], demo["actions"][:]


def assert_same(one, other):
    assert one.keys() == other.keys()
    for key, values in one.items():
        np.testing.assert_array_equal(values, other[key], err_msg=key)


def test_lift_speaks_gymnasium(lift):
    check_env(lift.unwrapped, skip_render_check=True)
    assert lift.metadata["action_representation"] == "delta_pose"
    assert lift.spec.max_episode_steps == 400


def test_lift_observes_what_robomimics_data_hold(lift):
    shapes = {key: space.shape for key, space in lift.observation_space.items()}
    expected = {"object": (10,), "robot0_eef_pos": (3,), "robot0_eef_quat": (4,), "robot0_gripper_qpos": (2,)}
    assert shapes.items() >= expected.items()
    assert not [key for key in shapes if key.endswith("-state")]
    observation, info = lift.reset(seed=1)
    assert info == {"is_success": False}
    cube, hand = observation["cube_pos"], observation["robot0_eef_pos"]
    np.testing.assert_array_equal(observation["object"][:3], cube)
    np.testing.assert_allclose(observation["object"][7:], cube - hand, atol=1e-6)


@pytest.mark.parametrize(
    ("task", "actions", "objects"),
    [("lift", 7, 10), ("can", 7, 14), ("square", 7, 14), ("tool_hang", 7, 44), ("transport", 14, 41)],
)
def test_a_reset_is_a_pure_function_of_the_seed(task, actions, objects):
    env, other = envs.make(task), envs.make(task)
    assert env.action_space.shape == (actions,)
    first, _ = env.reset(seed=7)
    assert first["object"].shape == (objects,)
    state, model = env.unwrapped.state, env.unwrapped.model
    env.step(env.action_space.high)
    moved, _ = env.reset(seed=8)
    assert not np.array_equal(moved["object"], first["object"])
    np.random.seed(0)  # noqa: NPY002 (nobody may look at the global generator)
    again, _ = env.reset(seed=7)
    assert_same(again, first)
    elsewhere, _ = other.reset(seed=7)
    assert_same(elsewhere, first)
    np.testing.assert_array_equal(other.unwrapped.state, state)
    assert other.unwrapped.model == model
    env.close()
    other.close()


def test_what_follows_a_reset_does_not_depend_on_what_came_before(lift):
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (6, 7))

    def episode():
        lift.reset(seed=5)
        return [lift.step(action)[0]["object"] for action in actions]

    first = episode()
    lift.reset(seed=6)
    lift.step(np.ones(7))
    np.testing.assert_array_equal(episode(), first)


def test_relative_poses_are_those_of_the_present(real_data):
    """robosuite 1.5 alone would compute them from the object's pose one step earlier, and from none after a reset."""
    rotation = pytest.importorskip("scipy.spatial.transform").Rotation
    env = envs.make("can")
    for observation in (env.reset(seed=3)[0], env.step(np.r_[0.5, -0.5, 0.3, 0.2, 0.1, 0.4, 1])[0]):
        hand = rotation.from_quat(observation["robot0_eef_quat"])
        expected = hand.inv().apply(observation["Can_pos"] - observation["robot0_eef_pos"])
        np.testing.assert_allclose(observation["Can_to_robot0_eef_pos"], expected, atol=2e-6)
        turned = hand.inv() * rotation.from_quat(observation["Can_quat"])
        difference = turned * rotation.from_quat(observation["Can_to_robot0_eef_quat"]).inv()
        assert difference.magnitude() < 1e-5
    env.close()


def test_an_environment_of_1_4_composes_the_objects_as_1_4_did():
    with pytest.warns(UserWarning, match=r"recorded with robosuite 1\.4\.1, installed is"):
        old = envs.make("can", env_args={"env_name": "PickPlaceCan", "env_version": "1.4.1"})
    observation, _ = old.reset(seed=3)
    names = ("Can_pos", "Can_quat", "Can_to_robot0_eef_pos", "Can_to_robot0_eef_quat")
    np.testing.assert_array_equal(observation["object"], np.concatenate([observation[name] for name in names]))
    old.close()


def test_a_recorded_state_is_restored_in_its_own_model(lift, recording):
    model, states, _ = recording
    observation, _ = lift.reset(seed=0, options={"model": model, "state": states[100]})
    np.testing.assert_array_equal(lift.unwrapped.state, states[100])
    np.testing.assert_allclose(observation["cube_pos"], states[100][10:13], atol=1e-6)  # time 1, joints 7, fingers 2
    again, _ = lift.reset(seed=9, options={"model": model, "state": states[100]})
    assert_same(again, observation)
    drawn, _ = lift.reset(seed=1)
    fresh, _ = envs.make("lift").reset(seed=1)
    assert_same(drawn, fresh)  # the recorded model is gone


def test_the_controllers_of_a_restored_state_know_where_they_are(lift, recording):
    model, states, _ = recording
    lift.reset(seed=0, options={"model": model, "state": states[100]})
    ((robot, arm),) = lift.unwrapped.arms
    site = lift.unwrapped.simulator.sim.data.site_xpos[robot.eef_site_id[arm]]
    np.testing.assert_array_equal(robot.part_controllers[arm].ref_pos, site)


def test_a_recorded_model_keeps_its_physics(lift, recording):
    model, states, _ = recording
    lift.reset(options={"model": model, "state": states[0]})
    simulated = lift.unwrapped.simulator.sim.model
    for name, recorded in (("cube_g0", 'name="cube_g0" size="'), ("table_collision", 'name="table_collision" size="')):
        size = np.fromstring(model.split(recorded)[1].split('"')[0], sep=" ")
        np.testing.assert_allclose(simulated.geom_size[simulated.geom_name2id(name)], size, rtol=1e-6)
    added = simulated.geom_name2id("robot0_link7_collision")
    assert (simulated.geom_contype[added], simulated.geom_conaffinity[added]) == (0, 0)


def test_lite_physics_is_the_same_physics(recording):
    """robosuite advises against it for data of 1.4; it is faster, and moves nothing differently."""
    model, states, actions = recording
    ends = []
    for lite in (True, False):
        args = {"env_name": "Lift", "env_version": "1.5.2", "env_kwargs": {"lite_physics": lite}}
        env = envs.make("lift", env_args=args)
        env.reset(options={"model": model, "state": states[0]})
        for action in actions[:10]:
            env.step(action)
        ends.append(env.unwrapped.state)
        env.close()
    np.testing.assert_array_equal(*ends)


def test_success_ends_the_episode(lift):
    lift.reset(seed=0)
    state = lift.unwrapped.state
    state[12] += 0.2  # lift the cube
    _, info = lift.reset(seed=0, options={"state": state})
    assert info == {"is_success": True}
    _, reward, terminated, truncated, info = lift.step(np.zeros(7))
    assert (reward, terminated, truncated, info) == (1.0, True, False, {"is_success": True})


def test_absolute_actions_reach_what_delta_actions_reach(lift):
    absolute = envs.make("lift", actions="absolute_pose")
    assert absolute.action_space.high.tolist() == [np.inf] * 6 + [1]
    lift.reset(seed=4)
    absolute.reset(seed=4)
    for action in np.random.default_rng(1).uniform(-1, 1, (10, 7)):
        goal = lift.unwrapped.absolute_action(action)
        one, other = lift.step(action)[0], absolute.step(goal)[0]
        np.testing.assert_allclose(other["robot0_eef_pos"], one["robot0_eef_pos"], atol=1e-6)
        np.testing.assert_allclose(other["robot0_eef_quat"], one["robot0_eef_quat"], atol=1e-5)
    absolute.close()


def test_absolute_actions_of_two_arms_reach_what_their_delta_actions_reach(transport):
    absolute = envs.make("transport", actions="absolute_pose")
    transport.reset(seed=4)
    absolute.reset(seed=4)
    for action in np.random.default_rng(1).uniform(-1, 1, (5, 14)):
        goal = transport.unwrapped.absolute_action(action)
        one, other = transport.step(action)[0], absolute.step(goal)[0]
        for arm in ("robot0", "robot1"):
            np.testing.assert_allclose(other[f"{arm}_eef_pos"], one[f"{arm}_eef_pos"], atol=1e-6)
            np.testing.assert_allclose(other[f"{arm}_eef_quat"], one[f"{arm}_eef_quat"], atol=1e-5)
    absolute.close()


def test_deltas_of_1_4_are_steps_in_the_world(transport):
    """Also for Transport, whose robots stand turned by a quarter: 1.5 would take them in the frame of the base."""
    kwargs = {"controller_configs": OLD_CONTROLLER, "env_configuration": "single-arm-opposed", "robots": ["Panda"] * 2}
    old = envs.make("transport", env_args={"env_name": "TwoArmTransport", "env_kwargs": kwargs})
    before, _ = old.reset(seed=2)
    for _ in range(5):
        after = old.step(np.r_[1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0])[0]
    for arm in ("robot0", "robot1"):
        step = after[f"{arm}_eef_pos"] - before[f"{arm}_eef_pos"]
        assert step[0] > 0.03
        assert abs(step[1]) < 0.01
    old.close()


def test_actions_of_1_4_without_a_rotation_hold_the_one_before():
    """People hardly ever turn; under 1.5 alone, the arm would turn away a little with every such action."""
    turn, go = np.r_[0, 0, 0, 0, 0.5, 0, -1], np.r_[1, 0, 0.5, 0, 0, 0, -1]
    goals = {}
    for version in ("1.4.1", "1.5.2"):
        args = {"env_name": "Lift", "env_version": version, "env_kwargs": {"controller_configs": OLD_CONTROLLER}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            env = envs.make("lift", env_args=args)
        env.reset(seed=1)
        ((robot, arm),) = env.unwrapped.arms
        controller = robot.part_controllers[arm]
        start = controller.goal_ori.copy()
        env.step(turn)
        after_turn = controller.goal_ori.copy()
        assert np.abs(after_turn - start).max() > 0.1
        env.step(go)
        goals[version] = np.abs(controller.goal_ori - after_turn).max()
        env.step(turn)
        assert np.abs(controller.goal_ori - after_turn).max() > 0.01
        env.close()
    assert goals["1.4.1"] == 0
    assert goals["1.5.2"] > 0.01


def test_the_environments_are_known_to_gymnasium():
    envs.register()
    env = gymnasium.make("shortcut_policy/Lift-v0", actions="absolute_pose")
    assert env.unwrapped.metadata["action_representation"] == "absolute_pose"
    env.close()


def test_pictures_stand_upright(gl_backend):
    env = envs.make("lift", render_mode="rgb_array", cameras=["agentview", "robot0_eye_in_hand"], camera_size=48)
    observation, _ = env.reset(seed=0)
    for key in ("agentview_image", "robot0_eye_in_hand_image"):
        assert observation[key].shape == (48, 48, 3)
        assert observation[key].dtype == env.observation_space[key].dtype == np.uint8
        assert observation[key].std() > 10
    picture = env.render()
    assert picture.shape == (256, 256, 3)
    rows, _ = np.nonzero((picture[..., 0] > 100) & (picture[..., 1] < 60) & (picture[..., 2] < 60))
    assert rows.mean() > 128  # the red cube lies on the table, in the lower half
    shrunk = picture[np.arange(48) * 256 // 48][:, np.arange(48) * 256 // 48]
    assert np.corrcoef(shrunk.ravel(), observation["agentview_image"].ravel())[0, 1] > 0.5  # not mirrored
    env.close()


@pytest.mark.filterwarnings("ignore:Lift was recorded with")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"env_args": {"env_name": "Stack"}}, "env_args are of 'Stack', but the environment is 'Lift'"),
        ({"env_args": {}}, "name no environment"),
        ({"env_args": {"env_name": "Lift", "type": 2}}, "of type 2"),
        ({"env_args": {"env_name": "Lift", "env_version": "new"}}, "env_version 'new'"),
        ({"env_args": {"env_name": "Lift", "env_kwargs": {"wings": 2}}}, "do not fit Lift.*'wings'"),
        ({"camera_size": 0}, "camera_size must be positive, got 0"),
        ({"render_camera": "moon"}, "no camera 'moon': it has frontview"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        envs.make("lift", **options)


def test_a_render_mode_that_needs_a_window_is_refused():
    with pytest.raises(ValueError, match="render_mode 'human'"):
        RobosuiteEnv("Lift", render_mode="human")


def test_an_unknown_robosuite_environment_is_refused():
    with pytest.raises(ValueError, match=r"'Fly', which robosuite .* does not have: it has .*Lift"):
        RobosuiteEnv("Fly")
    with pytest.raises(ValueError, match="needs a task such as 'Lift'"):
        RobosuiteEnv()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"states": 1}, "unknown reset option 'states'"),
        ({"model": "<mujoco/>"}, "needs its 'state' too"),
        ({"state": np.zeros(3)}, r"state must be 32 finite numbers for this model, got shape \(3,\)"),
        ({"state": np.full(32, np.nan)}, "finite"),
    ],
)
def test_wrong_reset_options_are_refused(lift, options, message):
    with pytest.raises(ValueError, match=message):
        lift.reset(options=options)


@pytest.mark.parametrize("action", [np.zeros(6), np.full(7, np.nan)])
def test_actions_of_the_wrong_kind_are_refused(lift, action):
    lift.reset(seed=0)
    with pytest.raises(ValueError, match="action must be 7 finite numbers"):
        lift.step(action)


def test_options_are_checked_without_a_simulator():
    with pytest.warns(UserWarning, match="recorded with robosuite"):
        envs.check("lift", env_args={"env_name": "Lift", "env_version": "1.4.0"})
    with pytest.raises(ValueError, match="of 'Lift', but the environment is 'PickPlaceCan'"):
        envs.check("can", env_args={"env_name": "Lift"})
    envs.check("can")
    with pytest.raises(ValueError, match="unknown environment 'golf': choose one of pusht, lift"):
        envs.check("golf")
