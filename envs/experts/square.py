"""Square: the nut is taken by its handle and let down over the peg, the handle on one of three sides of it.

The nut is square, so is the peg: with a quarter of a turn more or less the nut fits as well. The hand may also hold
the handle either way round. Where the nut lies by chance decides what the wrist can reach; among that the way is drawn.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.spatial.transform import Rotation

from envs.experts.motion import Arm, Motion, Plan, Pose, Settings, horizontal
from envs.robosuite import RobosuiteEnv

__all__ = ["SETTINGS", "WAYS", "plan"]

SETTINGS = Settings(position_noise=0.002)
"""With the usual noise the nut, 7 mm wider than the peg on each side, would often come down beside it."""

WAYS: Mapping[str, float] = MappingProxyType({"near": math.pi, "left": math.pi / 2, "right": -math.pi / 2})
"""Side of the peg, as the robot sees it, to which the handle points in the end, and its direction there, rad.

The far side is out of the hand's reach."""

_TURNS = (-1.6, 3.6)
"""How far the hand can turn from its first yaw, rad: the last joint has more room to one side."""
_LONGEST_TURN = 2.2  # rad, of a nut in the hand
_WIDEST_GRIP = 0.05  # m between the fingers; the handle is 0.032 wide, the nut itself 0.088
_PEG = "peg1"
_PEG_HALF_HEIGHT = 0.1  # m
_ATTEMPTS = 3
_PATIENCE = 25  # steps; after a large turn the arm is late, and would come down beside the handle


@dataclass(frozen=True)
class _Grip:
    """How the nut is taken.

    Attributes:
        way: of `WAYS`.
        turn: of the hand from its first yaw to the grasp, rad, beyond pi where that is the way the wrist can go.
        is_reversed: whether the fingers' direction is a quarter turn clockwise from the handle's, not the other way.
    """

    way: str
    turn: float
    is_reversed: bool


def plan(env: RobosuiteEnv, arms: Sequence[Arm], rng: np.random.Generator, settings: Settings) -> Plan:
    """Choose a side for the handle, and then one of the ways to hold it that the wrist can turn there."""
    (arm,) = arms
    nut = env.simulator.nuts[env.simulator.nut_id]
    grips = _reachable(Pose.of_body(env, nut.root_body).yaw, arm.pose.yaw)
    ways = sorted({grip.way for grip in grips})
    way = ways[rng.integers(len(ways))]
    grips = [grip for grip in grips if grip.way == way]
    grip = grips[rng.integers(len(grips))]
    peg = env.simulator.sim.data.get_body_xpos(_PEG).copy()

    def holds_handle() -> bool:
        return arm.holds(nut) and arm.opening < _WIDEST_GRIP

    def fetch(turn: float) -> Motion:
        """Grasp the handle, with attempts."""
        handle = np.array([rng.uniform(0.060, 0.070), 0, 0.003])  # in the nut
        side = horizontal(rng, settings.hover_offset)
        point = Pose.of_body(env, nut.root_body).to_world(handle)
        hover = Pose.downward(point + (*side, arm.style.hover), arm.goal.pose.yaw + turn)
        bulge = np.array([*horizontal(rng, settings.bulge), rng.uniform(0, settings.bulge)])
        middle = (arm.goal.pose.position + hover.position) / 2 + bulge
        if abs(turn) > _LONGEST_TURN:  # a motion takes the shorter way round
            yield from arm.move(Pose.downward(middle, arm.goal.pose.yaw + turn / 2), distance=0.05, angle=0.5)
            yield from arm.move(hover, distance=0.02, angle=0.2)
        else:
            yield from arm.move(hover, via=[middle], distance=0.02, angle=0.2)
        for _ in range(_ATTEMPTS):
            yield from arm.wait(lambda: arm.pose.is_near(arm.goal.pose, 0.015, 0.1), _PATIENCE)
            pose = Pose.of_body(env, nut.root_body)
            grasp = Pose.downward(pose.to_world(handle), _finger_yaw(pose.yaw, grip.is_reversed))
            yield from arm.move(grasp, distance=0.006)
            yield from arm.close()
            if holds_handle():
                return
            yield from arm.open()
            yield from arm.move(arm.goal.pose.shifted(z=arm.style.hover), distance=0.02)

    def over_peg(height: float) -> Pose:
        """Where the hand must be for the nut that it holds to be above the peg's middle by so much."""
        hand, held = arm.pose, Pose.of_body(env, nut.root_body)
        upright = Rotation.from_euler("z", WAYS[way])
        rotation = upright * held.rotation.inv() * hand.rotation
        offset = (upright * held.rotation.inv()).apply(hand.position - held.position)
        return Pose(peg + (0, 0, height) + offset, rotation)

    def place() -> Motion:
        clear = _PEG_HALF_HEIGHT + rng.uniform(0.03, 0.06)
        start, end = arm.goal.pose.position, over_peg(clear).position
        middle = (start + end) / 2 + (*horizontal(rng, settings.bulge), 0)
        above = [(*start[:2], end[2]), (*middle[:2], end[2])]  # steep at first: it must not hit the peg from the side
        yield from arm.move(over_peg(clear), via=above, distance=0.01)
        yield from arm.move(over_peg(clear), distance=0.005, angle=0.05)  # the nut has turned a little in the fingers
        yield from arm.move(over_peg(rng.uniform(0.04, 0.075)), speed=0.12, distance=0.01)
        yield from arm.open()
        yield from arm.wait(lambda: env.is_success, 10)

    def assemble() -> Motion:
        turn = grip.turn
        for _ in range(_ATTEMPTS):
            yield from fetch(turn)
            if holds_handle():
                yield from place()
            yield from arm.move(arm.goal.pose.shifted(z=0.12), distance=0.02)
            yaw = _finger_yaw(Pose.of_body(env, nut.root_body).yaw, grip.is_reversed)
            turn = math.remainder(yaw - arm.goal.pose.yaw, 2 * math.pi)

    return Plan(way, (assemble(),))


def _finger_yaw(nut_yaw: float, is_reversed: bool) -> float:
    return nut_yaw + (-1 if is_reversed else 1) * math.pi / 2


def _reachable(nut_yaw: float, hand_yaw: float) -> list[_Grip]:
    """All grips from which the wrist can turn the nut to one of the sides; never none."""
    low, high = _TURNS
    grips = []
    for is_reversed in (False, True):
        to_grasp = math.remainder(_finger_yaw(nut_yaw, is_reversed) - hand_yaw, 2 * math.pi)
        for turn in (to_grasp, to_grasp + 2 * math.pi, to_grasp - 2 * math.pi):
            for way, direction in WAYS.items():
                to_peg = math.remainder(direction - nut_yaw, 2 * math.pi)
                if low < turn < high and low < turn + to_peg < high and abs(to_peg) < _LONGEST_TURN:
                    grips.append(_Grip(way, turn, is_reversed))
    return grips
