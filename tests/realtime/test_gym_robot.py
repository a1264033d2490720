import gymnasium
import numpy as np
import pytest

from shortcut_policy.realtime.gym_robot import GymRobot


class Rewarded(gymnasium.Env):
    """Rewards with the action; succeeds in the second step, ends after the third."""

    def reset(self, *, seed=None, options=None):
        self.seed, self.steps = seed, 0
        return {"step": np.zeros(1)}, {}

    def step(self, action):
        assert self.steps < 3, "an ended episode was stepped"
        self.steps += 1
        return {"step": np.full(1, self.steps)}, action[0], False, self.steps == 3, {"is_success": self.steps == 2}


def test_an_episode_is_played_to_its_end_and_no_further():
    env = Rewarded()
    robot = GymRobot(env, seed=7)
    assert env.seed == 7
    assert robot.observe()["step"] == 0
    seen = []
    for reward in (0.25, 0.75, 0.5, 1.0):
        robot.act(np.array([reward]))
        seen.append((robot.observe()["step"].item(), robot.max_reward, robot.success, robot.ended.is_set()))
    assert seen == [(1, 0.25, False, False), (2, 0.75, True, False), (3, 0.75, True, True), (3, 0.75, True, True)]


def test_an_episode_of_which_nobody_says_whether_it_succeeded_has_not_failed():
    class Silent(Rewarded):
        def step(self, action):
            return *super().step(action)[:-1], {}

    robot = GymRobot(Silent())
    robot.act(np.array([0.5]))
    assert robot.success is None


def test_success_must_be_a_bool():
    class Robomimics(Rewarded):
        def step(self, action):
            return *super().step(action)[:-1], {"is_success": {"task": False}}

    with pytest.raises(ValueError, match=r"is_success=\{'task': False\}: it must be a bool"):
        GymRobot(Robomimics()).act(np.array([0.5]))
