"""Can: the can is grasped from one of three sides and carried over the walls of the bins in an arc."""

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from envs.experts.motion import Arm, Motion, Plan, Pose, Settings, horizontal
from envs.experts.picking import pick
from envs.robosuite import RobosuiteEnv

__all__ = ["SETTINGS", "WAYS", "plan"]

SETTINGS = Settings(speed=(0.22, 0.28), hover=(0.07, 0.12))

WAYS: Mapping[str, float] = MappingProxyType({"straight": 0.0, "turn_left": 1.1, "turn_right": -1.1})
"""How far the hand turns counterclockwise before it grasps, rad, give or take 0.25."""

_HALF_HEIGHT = 0.04  # m, of the can
_PLACE = ((0.045, 0.055), (0.09, 0.105))
"""Lowest and highest x and y of where the can is put, from the middle of the four bins, m: the arm is too short for
what lies further out, although it leans the hand outwards."""


def plan(env: RobosuiteEnv, arms: Sequence[Arm], rng: np.random.Generator, settings: Settings) -> Plan:
    """Choose the side from which the can is grasped."""
    (arm,) = arms
    simulator = env.simulator
    can = simulator.objects[simulator.object_id]
    way = list(WAYS)[rng.integers(len(WAYS))]
    first_yaw, turn = arm.pose.yaw, WAYS[way] + rng.uniform(-0.25, 0.25)
    shift = (*rng.uniform(-0.004, 0.004, 2), rng.uniform(-0.01, 0.02))  # m

    def grasp() -> Pose:
        position = Pose.of_body(env, can.root_body).position
        return Pose.downward(position, first_yaw + turn).shifted(*shift)

    def above_bin() -> Pose:
        x, y = simulator.bin2_pos[:2] + rng.uniform(*_PLACE)
        height = arm.goal.pose.position[2] + rng.uniform(0.02, 0.05)  # the bins stand equally high
        outwards = math.atan2(y - arm.base[1], x - arm.base[0])
        yaw = first_yaw + turn * rng.uniform(0.3, 1)
        return Pose.downward((x, y, height), yaw).leaning(rng.uniform(0.25, 0.4), outwards)

    def carry() -> Motion:
        yield from pick(arm, can, grasp, rng, settings, clearance=_HALF_HEIGHT)
        start, end = arm.goal.pose.position, above_bin()
        rise = (0, 0, rng.uniform(0.22, 0.30))
        sway = (*horizontal(rng, settings.bulge), 0)
        yield from arm.move(end, via=[start + rise, end.position + rise + sway], distance=0.02)
        yield from arm.open()
        yield from arm.move(arm.goal.pose.shifted(*horizontal(rng, 0.02), rng.uniform(0.08, 0.12)))

    return Plan(way, (carry(),))
