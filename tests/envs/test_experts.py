"""Experts in the real simulator: what they can do, in how many ways, and that seeds decide everything."""

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import envs
from envs.experts import env_name, make_expert, settings_of, task_names
from envs.experts.episode import run_episode
from envs.experts.geometry import Curve, Pose, horizontal, nearest_yaw
from envs.experts.motion import CLOSED, OPEN, Arm, Style

pytest.importorskip("robosuite")


@pytest.fixture(scope="module")
def lift():
    env = envs.make("lift")
    yield env
    env.close()


@pytest.fixture(scope="module")
def can():
    env = envs.make("can")
    yield env
    env.close()


@pytest.fixture(scope="module")
def lifted(lift):
    """The first three episodes."""
    return [run_episode(lift, "lift", seed) for seed in range(3)]


def without_noise(task, **changes):
    return dataclasses.replace(settings_of(task), position_noise=0.0, rotation_noise=0.0, **changes)


def test_poses():
    hand = Pose.downward((1, 2, 3), yaw=0.5)
    np.testing.assert_allclose(hand.rotation.as_matrix()[:, 2], (0, 0, -1), atol=1e-12)
    assert hand.yaw == pytest.approx(0.5)
    np.testing.assert_allclose(hand.shifted(z=-1).position, (1, 2, 2))
    np.testing.assert_allclose(hand.to_world([[0, 0, 0.1]]), [(1, 2, 2.9)])
    fingers = hand.leaning(0.3, towards=1.0).rotation.apply((0, 0, 1))
    np.testing.assert_allclose(fingers, (math.sin(0.3) * math.cos(1), math.sin(0.3) * math.sin(1), -math.cos(0.3)))
    assert hand.is_near(hand.shifted(x=0.009), 0.01, 0.01)
    assert not hand.is_near(hand.shifted(x=0.011), 0.01, 0.01)
    assert not hand.is_near(Pose.downward((1, 2, 3), yaw=0.52), 0.01, 0.01)


def test_yaws_and_directions():
    assert nearest_yaw(3.0, to=0.1) == pytest.approx(3.0 - math.pi)
    assert nearest_yaw(-1.5, to=1.0, period=math.pi / 2) == pytest.approx(-1.5 + math.pi)
    rng = np.random.default_rng(0)
    vectors = np.array([horizontal(rng, 0.1) for _ in range(1000)])
    lengths = np.linalg.norm(vectors, axis=1)
    assert 0.0999 > np.sort(lengths)[-3] > 0.098
    np.testing.assert_allclose((lengths < 0.05).mean(), 0.25, atol=0.05)  # even over the disc
    np.testing.assert_allclose(vectors.mean(axis=0), 0, atol=0.005)


def test_curves_are_travelled_by_their_length():
    line = Curve(np.array([(0, 0, 0), (0, 0, 1), (0, 0, 1), (0, 0, 2.0)]))
    assert line.length == pytest.approx(2)
    np.testing.assert_allclose(line.at(0.25), (0, 0, 0.5), atol=1e-3)
    arch = Curve(np.array([(0, 0, 0), (1, 0, 2), (2, 0, 0.0)]))
    np.testing.assert_allclose([arch.at(0), arch.at(0.5), arch.at(1)], [(0, 0, 0), (1, 0, 1), (2, 0, 0)], atol=1e-12)


def test_a_motion_keeps_to_its_speeds_and_ends_where_it_should(lift):
    env = lift.unwrapped
    env.reset(seed=0)
    arm = Arm(env, 0, Style(speed=0.2, turn_speed=1.0, hover=0.1))
    to = Pose.downward(arm.pose.position + (0.1, 0, -0.05), arm.pose.yaw + 0.3)
    goals = [arm.goal]
    for goal in arm.move(to, via=[arm.pose.position + (0, 0.1, 0)]):
        goals.append(goal)
        env.step(arm.action(goal))
    assert arm.pose.is_near(to, 0.015, 0.1)
    np.testing.assert_array_equal(goals[-1].pose.position, to.position)
    speeds = 20 * np.linalg.norm(np.diff([goal.pose.position for goal in goals], axis=0), axis=1)
    assert 0.19 < speeds.max() <= 0.2 + 1e-9
    assert speeds[0] < 0.05, "it begins slowly"
    rotations = Rotation.concatenate([goal.pose.rotation for goal in goals])
    assert (20 * (rotations[1:] * rotations[:-1].inv()).magnitude()).max() <= 1 + 1e-9
    assert {goal.gripper for goal in goals} == {OPEN}


def test_fingers_are_waited_for(lift):
    env = lift.unwrapped
    env.reset(seed=0)
    arm = Arm(env, 0, Style(speed=0.2, turn_speed=1.0, hover=0.1))
    for motion, command, opening in ((arm.open(), OPEN, 0.08), (arm.close(), CLOSED, 0.0)):
        steps = 0
        for goal in motion:
            assert goal.gripper == command
            env.step(arm.action(goal))
            steps += 1
        assert 4 < steps < 25
        assert arm.opening == pytest.approx(opening, abs=0.01)
    assert not arm.holds(env.simulator.cube)


def test_without_noise_the_absolute_actions_are_the_goals(lift):
    env = lift.unwrapped
    env.reset(seed=4)
    expert = make_expert("lift", env, np.random.default_rng(0), without_noise("lift", speed=(0.1, 0.12)))
    (arm,) = expert._arms
    for _ in range(20):
        action = expert.act()
        assert np.abs(action).max() <= 1
        absolute = env.absolute_action(action)
        np.testing.assert_allclose(absolute[:3], arm.goal.pose.position, atol=1e-9)
        turned = Rotation.from_rotvec(absolute[3:6]) * arm.goal.pose.rotation.inv()
        assert turned.magnitude() < 1e-6
        assert absolute[6] == arm.goal.gripper
        env.step(action)


def test_lift_succeeds_and_stays_there(lifted):
    for episode in lifted:
        assert episode.success
        assert 30 < len(episode.actions) < 100
        assert episode.successes.tolist() == [False] * (len(episode.actions) - 6) + [True] * 6
        np.testing.assert_array_equal(episode.rewards, episode.successes)
        assert np.abs(episode.actions).max() <= 1
        assert {values.dtype for values in episode.observations.values()} == {np.dtype(np.float32)}
        hand, cube = episode.observations["robot0_eef_pos"], episode.observations["cube_pos"]
        assert np.linalg.norm(hand[-1] - cube[-1]) < 0.02
        np.testing.assert_array_equal(np.unique(episode.actions[:, 6]), (OPEN, CLOSED))
        assert np.count_nonzero(np.diff(episode.actions[:, 6])) == 1


def test_an_episode_is_a_pure_function_of_its_seed(lift, lifted):
    again = run_episode(lift, "lift", 0)  # after others
    for field in dataclasses.fields(again):
        one, other = getattr(again, field.name), getattr(lifted[0], field.name)
        if field.name == "observations":
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[key], other[key]) for key in one)
        else:
            assert np.array_equal(one, other), field.name
    assert not np.array_equal(lifted[1].states[0], again.states[0])


@pytest.mark.parametrize(("task", "ways"), [("lift", 2), ("can", 3)])
def test_all_ways_are_open_from_the_same_state(task, ways, request):
    env = request.getfixturevalue(task).unwrapped
    env.reset(seed=1)
    chosen = [make_expert(task, env, np.random.default_rng(i)).way for i in range(60)]
    counts = [chosen.count(way) for way in set(chosen)]
    assert len(counts) == ways
    assert min(counts) > 60 / ways / 2


def test_lift_reaches_either_pair_of_faces(lift, lifted):
    turns = set()
    for episode in lifted:
        before, closing = 0, int(np.argmax(episode.actions[:, 6] > 0))
        hand = Rotation.from_quat(episode.observations["robot0_eef_quat_site"])
        cube = Rotation.from_quat(episode.observations["cube_quat"][closing])
        fingers = hand[closing].as_matrix()[:, 0]
        assert np.abs(cube.inv().apply(fingers)).max() > 0.97, "along one of the cube's axes"
        (x, y, _), (u, v, _) = hand[before].as_matrix()[:, 0], fingers
        turn = math.atan2(x * v - y * u, x * u + y * v)
        assert (turn > 0) == (episode.way == "turn_left")
        turns.add(episode.way)
    assert turns == {"turn_left", "turn_right"}


@pytest.mark.parametrize("seed", [0, 1])
def test_can_is_put_into_its_bin(can, seed):
    episode = run_episode(can, "can", seed)
    assert episode.success
    assert len(episode.actions) < 250
    x, y, z = episode.observations["Can_pos"][-1]
    assert 0.1 < x < 0.3
    assert 0.28 < y < 0.53
    assert z < 0.9
    assert np.linalg.norm(episode.observations["robot0_eef_pos"][-1] - (x, y, z)) > 0.04, "it has been let go"


def test_who_is_an_expert_of_what(can):
    assert {"lift", "can"} <= set(task_names()) <= set(envs.task_names())
    assert env_name("can") == type(can.unwrapped.simulator).__name__
    with pytest.raises(ValueError, match="no expert for 'pusht': choose one of lift, can"):
        env_name("pusht")


def test_absolute_environments_are_refused():
    class Absolute:
        actions = "absolute_pose"

    with pytest.raises(ValueError, match="'absolute_pose'"):
        make_expert("lift", Absolute(), np.random.default_rng(0))


def test_importing_the_package_loads_nothing_heavy():
    program = "import sys, envs.experts; print(*{name.partition('.')[0] for name in sys.modules})"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert {"robosuite", "mujoco", "scipy", "torch"}.isdisjoint(run.stdout.split())
