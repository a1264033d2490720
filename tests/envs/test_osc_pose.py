import copy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from envs.osc_pose import OscScale, absolute_from_delta, delta_from_absolute, hold_rotation
from envs.rendering import importing_robosuite

CONFIG = {
    "type": "OSC_POSE",
    "input_max": 1,
    "input_min": -1,
    "output_max": [0.05, 0.05, 0.05, 0.5, 0.5, 0.5],
    "output_min": [-0.05, -0.05, -0.05, -0.5, -0.5, -0.5],
    "kp": 150,
    "damping_ratio": 1,
    "impedance_mode": "fixed",
    "interpolation": None,
    "ramp_ratio": 0.2,
}  # what robosuite 1.4 and 1.5 have in common
SCALE = OscScale()
DOWN = np.diag([1.0, -1.0, -1.0])
# robosuite turns by a matrix that it rounds to float32 (its `quat2mat`).
GOAL_TOLERANCE = 3e-7


def quarter_turn(sign):
    return np.array([(0.0, -sign, 0.0), (sign, 0.0, 0.0), (0.0, 0.0, 1.0)])


def poses(generator, count):
    return generator.uniform(-1, 1, (count, 3)), Rotation.random(count, generator).as_matrix()


def angle_between(first, second):
    return (Rotation.from_matrix(first) * Rotation.from_matrix(second).inv()).magnitude()


def test_known_answers():
    position = np.array([0.1, 0.2, 1.0])
    action = np.array([1.0, -0.5, 9.0, 0.0, 0.0, 1.0, -0.3])  # 9 is clipped to 1
    absolute = absolute_from_delta(action, position, np.eye(3), SCALE)
    np.testing.assert_allclose(absolute, [0.15, 0.175, 1.05, 0, 0, 0.5, -0.3], atol=1e-15)
    # An arm that looks along the world's y axis: its forward is the world's y, its left the world's -x.
    absolute = absolute_from_delta(action, position, np.eye(3), SCALE, frame=quarter_turn(1))
    np.testing.assert_allclose(absolute, [0.125, 0.25, 1.05, 0, 0, 0.5, -0.3], atol=1e-15)
    # Roll of the base is pitch in the world, applied to the present rotation from the left.
    roll = np.array([0, 0, 0, 1.0, 0, 0, 1])
    absolute = absolute_from_delta(roll, position, DOWN, SCALE, frame=quarter_turn(1))
    expected = Rotation.from_euler("y", 0.5).as_matrix() @ DOWN
    np.testing.assert_allclose(Rotation.from_rotvec(absolute[3:6]).as_matrix(), expected, atol=1e-15)


@pytest.mark.parametrize("frame", [None, quarter_turn(1), quarter_turn(-1), Rotation.random(rng=3).as_matrix()])
@given(seed=st.integers(0, 2**32), width=st.floats(0.1, 2))
@settings(deadline=None, max_examples=30)
def test_absolute_and_delta_undo_each_other(frame, seed, width):
    generator = np.random.default_rng(seed)
    position, rotation = poses(generator, 20)
    scale = OscScale((-1.0, -width) + (-1.0,) * 4, (1.0,) * 5 + (2.0,), (-0.01,) * 3 + (-0.8,) * 3, (0.05,) * 6)
    action = np.concatenate((generator.uniform(scale.input_min, scale.input_max, (20, 6)), np.ones((20, 1))), axis=1)
    absolute = absolute_from_delta(action, position, rotation, scale, frame)
    assert np.linalg.norm(absolute[:, 3:6], axis=1).max() <= np.pi + 1e-12
    delta = delta_from_absolute(absolute, position, rotation, scale, frame)
    np.testing.assert_allclose(delta.action, action, atol=1e-11)
    assert not delta.is_clipped.any()


@pytest.mark.parametrize("frame", [None, quarter_turn(-1)])
def test_goals_out_of_reach_are_clipped_and_said_so(frame):
    position, rotation = poses(np.random.default_rng(0), 1)
    action = np.array([[1.0, -3.0, 0.2, -1.0, 1.5, 0.0, 0.5]])
    wide = OscScale((-5.0,) * 6, (5.0,) * 6, (-0.25,) * 3 + (-2.5,) * 3, (0.25,) * 3 + (2.5,) * 3)  # the same slope
    absolute = absolute_from_delta(action, position, rotation, wide, frame)
    delta = delta_from_absolute(absolute, position, rotation, SCALE, frame)
    np.testing.assert_allclose(delta.action, [[1.0, -1.0, 0.2, -1.0, 1.0, 0.0, 0.5]], atol=1e-12)
    assert delta.is_clipped.tolist() == [[False, True, False, False, True, False]]
    rounded = delta_from_absolute(absolute.astype(np.float32), position, rotation, SCALE, frame)
    np.testing.assert_array_equal(rounded.is_clipped, delta.is_clipped)


def test_two_arms_in_one_call_and_many_actions_at_one_pose():
    generator = np.random.default_rng(0)
    position, rotation = poses(generator, 2)
    frames = np.stack((quarter_turn(1), quarter_turn(-1)))  # the arms of Transport face each other
    actions = generator.uniform(-1, 1, (10, 2, 7))
    absolute = absolute_from_delta(actions, position, rotation, SCALE, frames)
    assert absolute.shape == (10, 2, 7)
    for step, arm in np.ndindex(10, 2):
        one = absolute_from_delta(actions[step, arm], position[arm], rotation[arm], SCALE, frames[arm])
        np.testing.assert_allclose(absolute[step, arm], one, atol=1e-14)
    np.testing.assert_allclose(
        delta_from_absolute(absolute, position, rotation, SCALE, frames).action, actions, atol=1e-12
    )
    forward = np.array([1.0, 0, 0, 0, 0, 0, 0])
    moved = absolute_from_delta(forward, position, rotation, SCALE, frames)[:, :3] - position
    np.testing.assert_allclose(moved, [(0, 0.05, 0), (0, -0.05, 0)], atol=1e-15)


def test_the_scale_is_read_from_both_forms_of_configuration():
    assert OscScale.from_config({**CONFIG, "control_delta": True}) == SCALE
    assert OscScale.from_config({**CONFIG, "input_type": "absolute", "input_ref_frame": "base"}) == SCALE
    assert OscScale.from_config({"type": "OSC_POSE"}) == SCALE
    read = OscScale.from_config({**CONFIG, "input_max": [2, 1, 1, 1, 1, 1], "output_min": -0.1})
    assert (read.input_max, read.output_min) == ((2, 1, 1, 1, 1, 1), (-0.1,) * 6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "JOINT_VELOCITY"}, "only OSC_POSE takes pose actions, the controller is 'JOINT_VELOCITY'"),
        ({"impedance_mode": "variable_kp"}, "impedance_mode 'variable_kp' takes gains"),
        ({"output_max": [0.05] * 3}, r"output_max must be six finite numbers, got \(0.05, 0.05, 0.05\)"),
        ({"input_max": None}, "input_max must be six finite numbers, got"),
        ({"output_min": 0.5}, "output_min .* must lie below its output_max"),
    ],
)
def test_another_controller_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        OscScale.from_config({**CONFIG, **change})


@pytest.mark.parametrize("convert", [absolute_from_delta, delta_from_absolute])
def test_wrong_shapes_are_quoted(convert):
    with pytest.raises(ValueError, match=r"action must have shape \(..., 7\), got \(14,\): give one arm at a time"):
        convert(np.zeros(14), np.zeros(3), np.eye(3), SCALE)
    with pytest.raises(ValueError, match=r"rotation must have shape \(..., 3, 3\), got \(4,\)"):
        convert(np.zeros(7), np.zeros(3), np.zeros(4), SCALE)
    with pytest.raises(ValueError, match=r"frame must have shape \(..., 3, 3\), got \(3,\)"):
        convert(np.zeros(7), np.zeros(3), np.eye(3), SCALE, np.zeros(3))


def test_without_rotation_the_last_goal_rotation_is_held():
    delta = np.zeros((7, 7))
    delta[3, 4], delta[6, 3], delta[4, 0], delta[5, 3] = 0.1, -0.2, 1, -0.0
    absolute = np.arange(49.0).reshape(7, 7) / 49
    absolute[:3, 3:6] = (0, 0, np.pi - 0.2), (0, 0, 0.1 - np.pi), (0, 0, 0.4 - np.pi)  # 0.1 beyond pi on average
    held = hold_rotation(absolute, delta)
    np.testing.assert_array_equal(held[3:, 3:6], absolute[[3, 3, 3, 6], 3:6])
    np.testing.assert_allclose(held[:3, 3:6], [(0, 0, 0.1 - np.pi)] * 3, atol=1e-12)
    np.testing.assert_array_equal(held[:, (0, 1, 2, 6)], absolute[:, (0, 1, 2, 6)])
    still = hold_rotation(absolute[:3], delta[:3])
    np.testing.assert_array_equal(still, held[:3])
    turning = absolute[3:], np.ones((4, 7))
    np.testing.assert_array_equal(hold_rotation(*turning), turning[0])
    assert hold_rotation(absolute[:0], delta[:0]).shape == (0, 7)


# In the simulator


def build(task, robots=1, **controller):
    with importing_robosuite():
        robosuite = pytest.importorskip("robosuite", reason="robosuite is not installed (extra robosuite)")
    part = {**CONFIG, **controller, "gripper": {"type": "GRIP"}}
    config = {"type": "BASIC", "body_parts": {"right": part}}
    return robosuite.make(
        task,
        robots=["Panda"] * robots,
        controller_configs=[copy.deepcopy(config) for _ in range(robots)],
        initialization_noise=None,
        has_renderer=False,
        has_offscreen_renderer=False,
        use_camera_obs=False,
        renderer="mujoco",
        ignore_done=True,
        seed=0,
    )


@pytest.fixture(scope="module")
def delta_env():
    env = build("Lift", input_type="delta", input_ref_frame="base")
    yield env
    env.close()


@pytest.fixture(scope="module")
def absolute_env():
    env = build("Lift", input_type="absolute", input_ref_frame="world")
    yield env
    env.close()


@pytest.fixture(scope="module")
def transport_env():
    env = build("TwoArmTransport", robots=2, input_type="delta", input_ref_frame="base")
    yield env
    env.close()


def controllers(env):
    return [robot.part_controllers["right"] for robot in env.robots]


def bases(env):
    return [robot.composite_controller.get_controller_base_pose("right") for robot in env.robots]


def grip_pose(env, controller):
    """Of the simulator's present state: a step leaves the site where it was one physics step ago."""
    import mujoco

    mujoco.mj_kinematics(env.sim.model._model, env.sim.data._data)
    site = env.sim.model.site_name2id(controller.ref_name)
    return env.sim.data.site_xpos[site].copy(), env.sim.data.site_xmat[site].reshape(3, 3).copy()


def check_goals(env, generator, rotate):
    for robot in env.robots:
        env.sim.data.qpos[robot._ref_joint_pos_indexes] = robot.init_qpos + generator.uniform(-0.5, 0.5, 7)
    env.sim.forward()
    for robot, controller, (origin, base) in zip(env.robots, controllers(env), bases(env), strict=True):
        controller.update(force=True)
        controller.update_origin(origin, base)
        action = generator.uniform(-1.3, 1.3, 7)
        action[3:6] *= rotate
        controller.set_goal(action[:6])
        position, rotation = controller.goal_pos, controller.goal_ori
        frame = base if controller.input_ref_frame == "base" else None
        if frame is not None:
            position, rotation = origin + base @ position, base @ rotation
        scale = OscScale.from_config(robot.part_controller_config["right"])
        absolute = absolute_from_delta(action, *grip_pose(env, controller), scale, frame)
        np.testing.assert_allclose(absolute[:3], position, rtol=0, atol=1e-9)
        tolerance = GOAL_TOLERANCE if rotate else 1e-9
        ours = Rotation.from_rotvec(absolute[3:6]).as_matrix()
        np.testing.assert_allclose(ours, rotation, rtol=0, atol=tolerance)
        assert absolute[6] == action[6]


@pytest.mark.parametrize("rotate", [True, False])
@pytest.mark.parametrize("frame", ["base", "world"])
@pytest.mark.parametrize("task", ["delta_env", "transport_env"])
def test_goals_are_the_controllers_own(request, monkeypatch, task, frame, rotate):
    env = request.getfixturevalue(task)
    env.reset()
    generator = np.random.default_rng(0)
    for controller in controllers(env):
        monkeypatch.setattr(controller, "input_ref_frame", frame)
    for _ in range(10):
        check_goals(env, generator, rotate)


def test_the_arms_of_transport_face_each_other(transport_env):
    """So that a mistake in the frame would show above."""
    (_, first), (_, second) = bases(transport_env)
    np.testing.assert_allclose(first, quarter_turn(1), atol=1e-9)
    np.testing.assert_allclose(second, quarter_turn(-1), atol=1e-9)


def test_absolute_actions_reach_the_same_poses(delta_env, absolute_env):
    generator = np.random.default_rng(1)
    for env in (delta_env, absolute_env):
        env.reset()
        env.sim.set_state_from_flattened(delta_env.sim.get_state().flatten())
        env.sim.data._data.qacc_warmstart[:] = 0
        env.sim.forward()
        env.robots[0].composite_controller.update_state()
        controllers(env)[0].update(force=True)
    (delta_controller,), (absolute_controller,) = controllers(delta_env), controllers(absolute_env)
    ((_, base),) = bases(delta_env)
    start, _ = grip_pose(delta_env, delta_controller)
    for step in range(30):
        if step % 10 == 0:
            direction = generator.uniform(-1.2, 1.2, 6)  # some are clipped
        delta = np.append(direction + generator.normal(0, 0.3, 6), (-1.0, 1.0)[step > 15])
        pose = grip_pose(delta_env, delta_controller)
        absolute = absolute_from_delta(delta, *pose, SCALE, base)
        back = delta_from_absolute(absolute, *pose, SCALE, base).action
        np.testing.assert_allclose(back, np.clip(delta, -1, 1), rtol=0, atol=1e-9)
        delta_env.step(delta)
        absolute_env.step(absolute)
        expected_position, expected_rotation = grip_pose(delta_env, delta_controller)
        position, rotation = grip_pose(absolute_env, absolute_controller)
        np.testing.assert_allclose(position, expected_position, rtol=0, atol=1e-7)
        assert angle_between(rotation, expected_rotation) < 1e-7
    assert np.linalg.norm(expected_position - start) > 0.1, "the arm moved"
