"""Recorded demonstrations replayed in the real simulator."""

import itertools

import h5py
import numpy as np
import pytest

from envs.osc_pose import hold_rotation
from envs.replay import DemoReplayer

pytest.importorskip("robosuite")

ENV_ARGS = {"env_name": "Lift", "type": 1, "env_version": "1.4.0", "env_kwargs": {"robots": "Panda"}}
CUBE = slice(1 + 9, 1 + 9 + 7)  # pose of the cube in a state: after time, 7 joints of the arm and 2 of the gripper


pytestmark = pytest.mark.filterwarnings("ignore:Lift was recorded with robosuite 1.4.0")


@pytest.fixture(scope="module")
def replayer():
    with DemoReplayer(ENV_ARGS) as built:
        yield built


@pytest.fixture
def cut(real_data):
    """Return a function from the steps to be had of a demo to (model, states, actions)."""
    path = real_data("robosuite_human/lift_panda_v1.4.0.hdf5")

    def read(demo, steps):
        with h5py.File(path) as file:
            group = file["data"][demo]
            return group.attrs["model_file"], group["states"][steps], group["actions"][steps]

    return read


def test_a_demo_is_shown_as_it_was_recorded_and_its_absolute_actions_reach_its_poses(replayer, cut):
    model, states, actions = cut("demo_1", slice(60, 85))
    demo = replayer.replay(model, states, actions)

    shown = demo.observations
    assert {len(values) for values in shown.values()} == {26}
    np.testing.assert_allclose(shown["robot0_joint_pos"][:-1], states[:, 1:8], atol=1e-6)
    np.testing.assert_allclose(shown["robot0_gripper_qpos"][:-1], states[:, 8:10], atol=1e-6)
    np.testing.assert_allclose(shown["cube_pos"][:-1], states[:, CUBE][:, :3], atol=1e-6)
    hand, cube, obj = shown["robot0_eef_pos"], shown["cube_pos"], shown["object"]
    np.testing.assert_allclose(obj[:, 7:], hand - cube, atol=1e-6)  # as robosuite 1.4 had it
    assert np.linalg.norm(np.diff(hand, axis=0), axis=1).max() < 0.03, "the last observation follows the others"

    moved = demo.absolute_actions[:, :3] - hand[:-1]
    np.testing.assert_allclose(moved, 0.05 * actions[:, :3].clip(-1, 1), atol=1e-6)
    np.testing.assert_array_equal(demo.absolute_actions[:, 6], actions[:, 6])
    turned = actions[:, 3:6].any(axis=1)
    assert not turned.all()
    held = hold_rotation(demo.absolute_actions, actions)  # of 1.4: holding once more changes nothing
    np.testing.assert_allclose(held, demo.absolute_actions, atol=1e-12)

    assert not demo.rewards.any()
    assert not demo.successes.any()
    assert not demo.absolute.success
    assert 0 < demo.absolute.mean_position_error < demo.absolute.max_position_error < 1e-3
    assert 0 < demo.absolute.mean_rotation_error < demo.absolute.max_rotation_error < 1e-2
    assert 0 < demo.delta.mean_position_error < demo.delta.max_position_error < 5e-3


def test_the_end_of_a_demo_succeeds(replayer, cut):
    lifted = cut("demo_3", slice(-8, None))
    demo = replayer.replay(*lifted)
    assert demo.successes.all()
    np.testing.assert_array_equal(demo.rewards, np.ones(8))
    assert demo.delta.success
    assert demo.absolute.success
    assert demo.observations["cube_pos"][:, 2].min() > 0.84


def test_what_does_not_fit_is_refused(replayer, cut):
    model, states, actions = cut("demo_1", slice(3))
    with pytest.raises(ValueError, match="actions are 6 wide, but the recorded environment takes 7"):
        replayer.replay(model, states, actions[:, :6])
    with pytest.raises(ValueError, match="32 finite numbers for this model"):
        replayer.replay(model, states[:, :-1], actions)
    with pytest.raises(ValueError, match="no XML"):
        replayer.replay(model[:1000], states, actions)


def test_recorded_states_become_images(gl_backend, cut):
    model, states, actions = cut("demo_3", slice(None, None, 150))
    with DemoReplayer(ENV_ARGS, cameras=["agentview"], camera_size=32) as replayer:
        demo = replayer.replay(model, states, actions)
    images = demo.observations["agentview_image"]
    assert images.shape == (len(states) + 1, 32, 32, 3)
    assert images.dtype == np.uint8
    assert all((one != other).any() for one, other in itertools.pairwise(images))
    np.testing.assert_allclose(demo.observations["cube_pos"][:-1], states[:, CUBE][:, :3], atol=1e-6)


def test_cameras_that_do_not_exist():
    with pytest.raises(ValueError, match=r"no camera 'nocam': it has .*agentview"):
        DemoReplayer(ENV_ARGS, cameras=["agentview", "nocam"])
