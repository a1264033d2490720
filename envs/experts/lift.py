"""Lift: the cube is grasped by one of its two pairs of faces, to which the hand turns left or right."""

import math
from collections.abc import Sequence

import numpy as np

from envs.experts.motion import Arm, Motion, Plan, Pose, Settings, horizontal, nearest_yaw
from envs.experts.picking import pick
from envs.robosuite import RobosuiteEnv

__all__ = ["SETTINGS", "WAYS", "plan"]

SETTINGS = Settings()

WAYS = ("turn_left", "turn_right")
"""Counterclockwise or clockwise as seen from above, by up to 90 degrees: wherever the cube lies, both are possible."""

_QUARTER = math.pi / 2


def plan(env: RobosuiteEnv, arms: Sequence[Arm], rng: np.random.Generator, settings: Settings) -> Plan:
    """Choose the faces by the turn that leads to them."""
    (arm,) = arms
    cube = env.simulator.cube
    way = WAYS[rng.integers(len(WAYS))]
    hand_yaw, cube_yaw = arm.pose.yaw, Pose.of_body(env, cube.root_body).yaw
    first_yaw = hand_yaw + (cube_yaw - hand_yaw) % _QUARTER - (0 if way == "turn_left" else _QUARTER)
    shift = (*rng.uniform(-0.005, 0.005, 2), rng.uniform(-0.008, 0.004))  # m

    def grasp() -> Pose:
        lying = Pose.of_body(env, cube.root_body)
        yaw = nearest_yaw(lying.yaw, to=first_yaw, period=_QUARTER)  # the cube may have been pushed
        return Pose.downward(lying.position, yaw).shifted(*shift)

    def lift() -> Motion:
        yield from pick(arm, cube, grasp, rng, settings)
        yield from arm.move(arm.goal.pose.shifted(*horizontal(rng, 0.03), rng.uniform(0.08, 0.12)))

    return Plan(way, (lift(),))
