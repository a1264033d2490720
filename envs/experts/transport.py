"""Transport: one arm opens a bin and hands the hammer in it over to the other, which has emptied another bin for it.

The arms work at the same time. They meet in the air, on the side of the bin that the hammer comes from or on that of
the one it goes to. The giver holds the hammer by the end that lies towards it, head or handle, the taker by the other.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from envs.experts.motion import Arm, Motion, Plan, Pose, Settings, horizontal, nearest_yaw
from envs.robosuite import RobosuiteEnv

__all__ = ["SETTINGS", "WAYS", "plan"]

SETTINGS = Settings(position_noise=0.002, bulge=0.05)
"""The hammer's head lies within 1 cm of a wall, and arms that swing far out would touch each other."""

WAYS: Mapping[str, int] = MappingProxyType({"start_side": 1, "target_side": -1})
"""Where the arms meet: the sign of x there."""

_BIN_TOP = 0.95  # m, height of the walls' upper edge
_BIN_HALF_WIDTH = 0.14  # m, inside
_TRAVEL = 1.15  # m, height of control points of curves over walls
_LID_PLACE = (-0.16, -0.45)  # m, beside its bin
_LID_LYING = 0.835  # m, height of the hand that holds it by the handle
_HANDS_APART = 0.13  # m, along the hammer
_HANDLE_REACH = 0.085  # m, from its middle to the outermost grip
_LEAN = 0.2
"""Of the hands away from their bases, rad. Upright, they would touch each other when they meet, and drift when they are
deep in a bin: there the forearm is nearly upright, too, and the wrist nearly singular."""
_ATTEMPTS = 3


def plan(env: RobosuiteEnv, arms: Sequence[Arm], rng: np.random.Generator, settings: Settings) -> Plan:
    """Choose the side where the arms meet."""
    way = list(WAYS)[rng.integers(len(WAYS))]
    meeting = np.array([WAYS[way] * rng.uniform(0.07, 0.13), 0, rng.uniform(1.0, 1.05)])
    hand_over = _HandOver(env, *arms, meeting, rng, settings)
    return Plan(way, (hand_over.give(), hand_over.take()))


class _HandOver:
    """What both arms do, and what they know of each other."""

    def __init__(
        self,
        env: RobosuiteEnv,
        giver: Arm,
        taker: Arm,
        meeting: np.ndarray,
        rng: np.random.Generator,
        settings: Settings,
    ) -> None:
        self._env, self._group = env, env.simulator.transport
        self._giver, self._taker, self._meeting = giver, taker, meeting
        self._rng, self._settings = rng, settings
        self._is_offered = self._is_taken = self._is_released = False

    def give(self) -> Motion:
        """Lay the lid aside, fetch the hammer, hold it out, let go once it is taken."""
        arm = self._giver
        yield from self._open_bin()
        yield from self._fetch_hammer()
        at = self._meeting - (0, _HANDS_APART / 2, 0)
        yield from arm.move(self._pointing(at, arm), via=self._over_walls(arm, at), distance=0.02)
        yield from arm.move(self._pointing(at, arm), distance=0.01)
        self._is_offered = True
        yield from arm.wait(lambda: self._is_taken)
        yield from arm.open()
        # Straight up, and before the taker moves: the head would catch on the fingers.
        yield from arm.move(arm.goal.pose.shifted(z=0.1), distance=0.03)
        self._is_released = True
        yield from arm.move(arm.goal.pose.shifted(y=-self._rng.uniform(0.15, 0.25)), distance=0.03)

    def take(self) -> Motion:
        """Carry the trash away, meet the giver, lay the hammer into the emptied bin."""
        arm = self._taker
        yield from self._clear_trash()
        waiting = self._meeting + (*self._rng.uniform(-0.03, 0.03, 2), 0.15) + (0, 0.22, 0)
        yield from arm.move(
            _taking_hand(waiting, nearest_yaw(0, to=arm.goal.pose.yaw)),
            via=self._over_walls(arm, waiting),
            distance=0.03,
        )
        yield from arm.wait(lambda: self._is_offered)
        yield from self._grasp(arm, self._handle_end, self._group.payload, (0, 0.02, 0.1))
        self._is_taken = True
        yield from arm.wait(lambda: self._is_released)
        yield from arm.move(arm.goal.pose.shifted(y=0.06, z=0.04), distance=0.02)
        yield from arm.move(self._over_target(0.3), via=self._over_walls(arm, self._over_target(0.3).position))
        yield from arm.move(self._over_target(self._rng.uniform(0.04, 0.06)))
        yield from arm.open()
        yield from arm.move(arm.goal.pose.shifted(z=0.15))

    def _open_bin(self) -> Motion:
        arm, rng, lid = self._giver, self._rng, self._group.lid
        grip = rng.uniform((0, -0.015, 0.002), (0, 0.015, 0.008))  # on the handle, which is 8 cm long

        def handle() -> Pose:
            yaw = Pose.of_body(self._env, lid.root_body).yaw
            return Pose.downward(self._group.lid_handle_pos + grip, nearest_yaw(yaw, to=arm.goal.pose.yaw))

        side = horizontal(rng, self._settings.hover_offset)
        yield from arm.move(handle().shifted(*side, arm.style.hover), distance=0.02)
        yield from self._grasp(arm, handle, lid, (0, 0, arm.style.hover))
        place = np.array([*(_LID_PLACE + rng.uniform((-0.03, -0.015), (0.03, 0.015))), _LID_LYING])
        above = Pose(place + (0, grip[1], _BIN_TOP + 0.08 - _LID_LYING), arm.goal.pose.rotation)
        yield from arm.move(above, via=[arm.goal.pose.position + (0, 0, 0.14)], distance=0.03)
        yield from arm.move(Pose(place + (0, grip[1], 0), above.rotation))
        yield from arm.open()

    def _fetch_hammer(self) -> Motion:
        arm, hammer = self._giver, self._group.payload
        from_middle = self._rng.uniform(0.045, 0.055)

        def near_end() -> Pose:
            middle, along = self._hammer()
            across = math.atan2(along[1], along[0]) + math.pi / 2
            return _giving_hand(middle - from_middle * along + (0, 0, 0.002), nearest_yaw(across, to=arm.goal.pose.yaw))

        yield from self._descend(arm, near_end, hammer)
        # The head nearly touches a wall: away from it first.
        head_y = Pose.of_body(self._env, hammer.root_body).to_world((0, 0, 1))[1]
        inwards = arm.goal.pose.shifted(y=math.copysign(0.02, self._hammer()[0][1] - head_y))
        yield from arm.move(inwards.shifted(z=0.25), via=[inwards.shifted(z=0.03).position] * 2, distance=0.03)

    def _clear_trash(self) -> Motion:
        arm, trash, rng = self._taker, self._group.trash, self._rng

        def cube() -> Pose:
            pose = Pose.of_body(self._env, trash.root_body)
            yaw = nearest_yaw(pose.yaw, to=arm.goal.pose.yaw, period=math.pi / 2)  # a far turned wrist would drift
            return _taking_hand(pose.position + (0, 0, 0.004), yaw)

        for _ in range(_ATTEMPTS):
            yield from self._descend(arm, cube, trash)
            over = self._group.trash_bin_pos + (*horizontal(rng, 0.04), rng.uniform(0.16, 0.20))
            yaw = nearest_yaw(0, to=arm.goal.pose.yaw)
            yield from arm.move(Pose.downward(over, yaw), via=self._over_walls(arm, over), distance=0.02)
            yield from arm.open()
            if np.abs(self._group.trash_pos - self._group.trash_bin_pos)[:2].max() < _BIN_HALF_WIDTH:
                return

    def _descend(self, arm: Arm, pose: Callable[[], Pose], thing: object) -> Motion:
        """Grasp a thing in a bin."""
        up = _BIN_TOP + arm.style.hover - pose().position[2]
        hover = pose().shifted(z=up)
        yield from arm.move(hover, via=self._over_walls(arm, hover.position), distance=0.02)
        yield from self._grasp(arm, pose, thing, (0, 0, up))

    def _grasp(self, arm: Arm, pose: Callable[[], Pose], thing: object, before: Sequence[float]) -> Motion:
        """Grasp a thing that lies where `pose` says, coming from `before` (3,) it in m, with attempts."""
        for attempt in range(_ATTEMPTS):
            yield from arm.move(pose().shifted(*before), distance=0.02)
            yield from arm.move(pose(), distance=0.01)
            yield from arm.close()
            if arm.holds(thing):
                return
            if attempt < _ATTEMPTS - 1:
                yield from arm.open()
                yield from arm.move(arm.goal.pose.shifted(*before), distance=0.02)

    def _over_walls(self, arm: Arm, to: np.ndarray) -> list[np.ndarray]:
        """Control points of a curve that rises where it begins and falls where it ends."""
        bulges = [(*horizontal(self._rng, self._settings.bulge), self._rng.uniform(0, 0.05)) for _ in range(2)]
        return [
            np.array([*end[:2], _TRAVEL]) + bulge
            for end, bulge in zip((arm.goal.pose.position, to), bulges, strict=True)
        ]

    def _hammer(self) -> tuple[np.ndarray, np.ndarray]:
        """Middle of its handle (3,), and the unit vector (3,) along it away from the giver."""
        pose = Pose.of_body(self._env, self._group.payload.root_body)
        along = pose.rotation.as_matrix()[:, 2]
        return pose.position, along if along[1] > 0 else -along

    def _pointing(self, position: np.ndarray, arm: Arm) -> Pose:
        """The giver's hand, turned so that the hammer in it points to the taker."""
        along = self._hammer()[1]
        turn = math.pi / 2 - math.atan2(along[1], along[0])
        return _giving_hand(position, arm.pose.yaw + turn)

    def _handle_end(self) -> Pose:
        """The taker's hand on the part of the handle that the giver leaves free."""
        middle, along = self._hammer()
        given = float((self._giver.pose.position - middle) @ along)
        across = math.atan2(along[1], along[0]) + math.pi / 2
        return _taking_hand(
            middle + along * min(given + _HANDS_APART, _HANDLE_REACH), nearest_yaw(across, to=self._taker.goal.pose.yaw)
        )

    def _over_target(self, height: float) -> Pose:
        """The taker's hand, when the hammer hangs so high above the emptied bin's floor."""
        offset = self._taker.pose.position - self._hammer()[0]
        return Pose.downward(
            self._group.target_bin_pos + offset + (0, 0, height), nearest_yaw(0, to=self._taker.goal.pose.yaw)
        )


def _giving_hand(position: np.ndarray, yaw: float) -> Pose:
    """The giver's hand, leaning."""
    return Pose.downward(position, yaw).leaning(_LEAN, towards=math.pi / 2)


def _taking_hand(position: np.ndarray, yaw: float) -> Pose:
    """The taker's hand, leaning."""
    return Pose.downward(position, yaw).leaning(_LEAN, towards=-math.pi / 2)
