"""What all experts are made of: an arm that moves its goal along curves, and the noise of its actions.

An expert knows the simulator's state. For every arm it is a generator that yields, each control step, the pose where
the grip site shall be and what the fingers shall do. These goals run along smooth curves at limited speed; the arm
follows some 0.16 s behind, because OSC_POSE is critically damped. Since the goals do not depend on where the arm is,
they are, but for the noise, the absolute actions: smooth, and able to do the task open loop.

    def fetch(arm, body):
        target = Pose.of_body(arm.env, body)                     # looked up when this is reached
        yield from arm.move(Pose.downward(target.position, yaw=0.3), via=[above])
        yield from arm.close()
        yield from arm.move(arm.goal.pose.shifted(z=0.1))
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.spatial.transform import Rotation

from envs.experts.geometry import Curve, Pose, horizontal, nearest_yaw
from envs.osc_pose import OscScale, delta_from_absolute
from envs.robosuite import RobosuiteEnv

__all__ = [
    "CLOSED",
    "OPEN",
    "Arm",
    "Expert",
    "Goal",
    "Motion",
    "Plan",
    "Pose",
    "Settings",
    "Style",
    "horizontal",
    "nearest_yaw",
]

OPEN, CLOSED = -1.0, 1.0
"""What the gripper is told."""

_EASE = 0.25  # share of a motion that it takes to reach full speed, and to lose it
_STILL = 0.02  # m/s, of a finger
_FINGER_STEPS = (4, 25)  # least and most that fingers are given
_SETTLE_STEPS = 15  # most that the arm is given to catch up with a goal that has arrived


@dataclass(frozen=True, eq=False)
class Goal:
    """What an arm is told for one control step; `gripper` is `OPEN` or `CLOSED`."""

    pose: Pose
    gripper: float


Motion = Iterator[Goal]
"""One goal for each control step, until the motion is done."""


@dataclass(frozen=True)
class Settings:
    """From what an expert draws the style of an episode; pairs are lowest and highest, drawn uniformly.

    Attributes:
        speed: peak, m/s; beyond 0.28 delta actions, which reach 0.05 m, no longer keep up.
        turn_speed: peak, rad/s; likewise beyond 2.8.
        hover: height of the way-point from which a hand descends on an object, m.
        hover_offset: largest distance of that way-point from the vertical above the object, m.
        bulge: largest sideways shift of a curve's control points, m.
        position_noise: standard deviation of the noise on each axis of the goal, m.
        rotation_noise: likewise of its rotation vector, rad.
        noise_persistence: share of the noise that is left one control step later, in [0, 1).
    """

    speed: tuple[float, float] = (0.18, 0.28)
    turn_speed: tuple[float, float] = (1.5, 2.5)
    hover: tuple[float, float] = (0.05, 0.10)
    hover_offset: float = 0.03
    bulge: float = 0.08
    position_noise: float = 0.003
    rotation_noise: float = 0.02
    noise_persistence: float = 0.9


@dataclass(frozen=True)
class Style:
    """What an episode has drawn: peak speeds in m/s and rad/s, and the height of the hover in m."""

    speed: float
    turn_speed: float
    hover: float

    @classmethod
    def draw(cls, settings: Settings, rng: np.random.Generator) -> Self:
        """Draw one."""
        return cls(rng.uniform(*settings.speed), rng.uniform(*settings.turn_speed), rng.uniform(*settings.hover))


class Arm:
    """One arm: where it is, the goal it is given, and motions of this goal.

    A motion starts from the goal that it finds when its first step is asked for.

    Attributes:
        env: the environment.
        style: speeds of its motions.
        goal: the last one, without noise; at first where the hand is, with the fingers open.
    """

    def __init__(self, env: RobosuiteEnv, index: int, style: Style) -> None:
        """Take the arm `index` of the environment, which must have been reset and have OSC_POSE controllers."""
        self.env, self.style = env, style
        self._robot, self._side = env.arms[index]
        self.goal = Goal(self.pose, OPEN)

    @property
    def pose(self) -> Pose:
        """Where the grip site is now."""
        data, site = self.env.simulator.sim.data, self._robot.eef_site_id[self._side]
        return Pose(data.site_xpos[site].copy(), Rotation.from_matrix(data.site_xmat[site].reshape(3, 3)))

    @property
    def base(self) -> np.ndarray:
        """Where the arm is mounted (3,), m."""
        position, _ = self._robot.composite_controller.get_controller_base_pose(self._side)
        return position

    @property
    def opening(self) -> float:
        """How far the fingers are apart, m: 0.08 when they are open."""
        indices = self._robot._ref_gripper_joint_pos_indexes[self._side]
        return float(np.abs(self.env.simulator.sim.data.qpos[indices]).sum())

    @property
    def gripper(self) -> Any:
        """robosuite's model of the hand, for its contacts."""
        return self._robot.gripper[self._side]

    def holds(self, geoms: Any) -> bool:
        """Whether both fingers touch the object: robosuite's model of it, or a list of its geoms."""
        return bool(self.env.simulator._check_grasp(self.gripper, geoms))

    def move(
        self,
        to: Pose,
        *,
        via: Sequence[np.ndarray] = (),
        speed: float | None = None,
        distance: float = 0.015,
        angle: float = 0.1,
    ) -> Motion:
        """Take the goal to a pose along a Bézier curve, turning it evenly on the way, and let the hand catch up.

        Args:
            to: the end.
            via: control points (3,) of the curve between its ends, in order; none for a straight line.
            speed: peak, m/s; the style's by default.
            distance: from the end at which the hand is there, m; it is not waited for longer than 15 steps.
            angle: likewise, rad.
        """
        start, gripper = self.goal.pose, self.goal.gripper
        curve = Curve(np.array([start.position, *via, to.position], np.float64))
        turn = (to.rotation * start.rotation.inv()).as_rotvec()
        seconds = max(
            curve.length / (speed or self.style.speed), float(np.linalg.norm(turn)) / self.style.turn_speed
        ) / (1 - _EASE)
        steps = max(1, math.ceil(seconds * self.env.simulator.control_freq))
        for step in range(1, steps + 1):
            share = _eased(step / steps)
            rotation = Rotation.from_rotvec(share * turn) * start.rotation
            yield self._set(Pose(curve.at(share), rotation), gripper)
        yield from self.wait(lambda: self.pose.is_near(to, distance, angle), _SETTLE_STEPS)

    def wait(self, until: Callable[[], bool] = lambda: False, steps: int = 1_000_000) -> Motion:
        """Hold the goal until something is the case, which is looked at before every step, or for so many steps."""
        for _ in range(steps):
            if until():
                return
            yield self.goal

    def close(self) -> Motion:
        """Close the fingers until they have stopped."""
        yield from self._grip(CLOSED)

    def open(self) -> Motion:
        """Open the fingers until they have stopped."""
        yield from self._grip(OPEN)

    def action(self, goal: Goal) -> np.ndarray:
        """The delta action (7,) that takes the hand from where it is as near to the goal as it can."""
        import mujoco

        sim, pose = self.env.simulator.sim, goal.pose
        mujoco.mj_kinematics(sim.model._model, sim.data._data)  # after a step, poses are those of one physics step ago
        controller = self._robot.part_controllers[self._side]
        _, base = self._robot.composite_controller.get_controller_base_pose(self._side)
        bounds = {name: tuple(getattr(controller, name)) for name in OscScale.__dataclass_fields__}
        here = self.pose
        return delta_from_absolute(
            np.concatenate((pose.position, pose.rotation.as_rotvec(), [goal.gripper])),
            position=here.position,
            rotation=here.rotation.as_matrix(),
            scale=OscScale(**bounds),
            frame=base if controller.input_ref_frame == "base" else None,
        ).action

    def _set(self, pose: Pose, gripper: float) -> Goal:
        self.goal = Goal(pose, gripper)
        return self.goal

    def _grip(self, gripper: float) -> Motion:
        self._set(self.goal.pose, gripper)
        least, most = _FINGER_STEPS
        yield from self.wait(steps=least)
        velocities = self.env.simulator.sim.data.qvel
        indices = self._robot._ref_gripper_joint_vel_indexes[self._side]
        yield from self.wait(lambda: bool(np.abs(velocities[indices]).max() < _STILL), most - least)


@dataclass(frozen=True, eq=False)
class Plan:
    """How one episode is done: the name of the way that was chosen, and a motion for every arm, in their order."""

    way: str
    motions: tuple[Motion, ...]


class Expert:
    """Does a task from the state in which it finds the environment, once.

    Attributes:
        way: which of the task's distinct ways it has chosen.
    """

    def __init__(
        self,
        env: RobosuiteEnv,
        rng: np.random.Generator,
        plan: Callable[[RobosuiteEnv, Sequence[Arm], np.random.Generator, Settings], Plan],
        settings: Settings,
    ) -> None:
        """Draw a style and a plan.

        Args:
            env: takes delta poses, and has been reset.
            rng: of this expert alone.
            plan: makes the plan of the task.
            settings: of the styles to be drawn.

        Raises:
            ValueError: the environment takes other actions.
        """
        if env.actions != "delta_pose":
            raise ValueError(f"experts need an environment with actions='delta_pose', not {env.actions!r}")
        self._settings, self._rng = settings, rng
        self._arms = [Arm(env, index, Style.draw(settings, rng)) for index in range(len(env.arms))]
        chosen = plan(env, self._arms, rng, settings)
        self.way, self._motions = chosen.way, chosen.motions
        self._noise = np.zeros((len(self._arms), 6))

    def act(self) -> np.ndarray:
        """The next action (7 arms,), float64 in [-1, 1]; when a motion is done, its arm holds the last goal."""
        kept = self._settings.noise_persistence
        fresh = self._rng.normal(size=self._noise.shape)
        fresh[:, :3] *= self._settings.position_noise
        fresh[:, 3:] *= self._settings.rotation_noise
        self._noise = kept * self._noise + math.sqrt(1 - kept**2) * fresh
        goals = [next(motion, arm.goal) for arm, motion in zip(self._arms, self._motions, strict=True)]
        return np.concatenate(
            [
                arm.action(Goal(_disturbed(goal.pose, noise), goal.gripper))
                for arm, goal, noise in zip(self._arms, goals, self._noise, strict=True)
            ]
        )


def _disturbed(pose: Pose, noise: np.ndarray) -> Pose:
    return Pose(pose.position + noise[:3], Rotation.from_rotvec(noise[3:]) * pose.rotation)


def _eased(share: float) -> float:
    """Share of the way at a share of the time, in [0, 1]: even acceleration, even speed, even deceleration."""
    if share > 0.5:
        return 1 - _eased(1 - share)
    if share < _EASE:
        return share**2 / (2 * _EASE * (1 - _EASE))
    return (share - _EASE / 2) / (1 - _EASE)
