"""Poses of hands and things in the world, and curves from one to another."""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from scipy.spatial.transform import Rotation

from envs.robosuite import RobosuiteEnv

__all__ = ["Curve", "Pose", "horizontal", "nearest_yaw"]

_CURVE_POINTS = 65


@dataclass(frozen=True, eq=False)
class Pose:
    """A pose in the world: position (3,) in m, and rotation.

    A hand's is that of its grip site: x points from finger to finger, z the way the fingers point.
    """

    position: np.ndarray
    rotation: Rotation

    @classmethod
    def downward(cls, position: np.ndarray, yaw: float) -> Self:
        """A hand that points down, its fingers side by side along the horizontal direction `yaw`, rad."""
        c, s = math.cos(yaw), math.sin(yaw)
        return cls(np.asarray(position, np.float64), Rotation.from_matrix([[c, s, 0], [s, -c, 0], [0, 0, -1]]))

    @classmethod
    def of_body(cls, env: RobosuiteEnv, name: str) -> Self:
        """Where the body `name` is now."""
        data = env.simulator.sim.data
        return cls(data.get_body_xpos(name).copy(), Rotation.from_matrix(data.get_body_xmat(name).reshape(3, 3)))

    @classmethod
    def of_site(cls, env: RobosuiteEnv, name: str) -> Self:
        """Where the site `name` is now."""
        data = env.simulator.sim.data
        return cls(data.get_site_xpos(name).copy(), Rotation.from_matrix(data.get_site_xmat(name).reshape(3, 3)))

    @property
    def yaw(self) -> float:
        """Direction of the x axis seen from above, rad."""
        x, y, _ = self.rotation.as_matrix()[:, 0]
        return math.atan2(y, x)

    def shifted(self, x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Self:
        """The same pose elsewhere, moved along the world's axes by so many m."""
        return replace(self, position=self.position + (x, y, z))

    def leaning(self, angle: float, towards: float) -> Self:
        """The same hand with its fingers pointing so many rad further towards the horizontal direction `towards`.

        At the rim of what a hand can reach, it reaches further so.
        """
        axis = np.array([math.sin(towards), -math.cos(towards), 0.0])
        return replace(self, rotation=Rotation.from_rotvec(angle * axis) * self.rotation)

    def to_world(self, points: np.ndarray) -> np.ndarray:
        """Points (..., 3) of this frame in the world."""
        points = np.asarray(points, np.float64)
        return self.rotation.apply(points.reshape(-1, 3)).reshape(points.shape) + self.position

    def is_near(self, other: "Pose", distance: float, angle: float) -> bool:
        """Whether the other is within so many m and rad."""
        apart = float(np.linalg.norm(self.position - other.position))
        return apart < distance and (self.rotation * other.rotation.inv()).magnitude() < angle


class Curve:
    """A Bézier curve, travelled by the share of its length.

    Attributes:
        length: m.
    """

    def __init__(self, control: np.ndarray) -> None:
        """Take the control points (k, 3), ends included, k >= 2."""
        t = np.linspace(0, 1, _CURVE_POINTS)[:, None, None]
        points = np.broadcast_to(control, (_CURVE_POINTS, *control.shape))
        while points.shape[1] > 1:  # de Casteljau
            points = (1 - t) * points[:, :-1] + t * points[:, 1:]
        self._points = points[:, 0]
        self._lengths = np.concatenate(([0], np.linalg.norm(np.diff(self._points, axis=0), axis=1).cumsum()))
        self.length = float(self._lengths[-1])

    def at(self, share: float) -> np.ndarray:
        """The point (3,) at a share of the length, in [0, 1]."""
        return np.array([np.interp(share * self.length, self._lengths, axis) for axis in self._points.T])


def nearest_yaw(yaw: float, to: float, period: float = math.pi) -> float:
    """The yaw nearest to another among those that differ by multiples of the period; a hand looks the same after pi."""
    return yaw + period * round((to - yaw) / period)


def horizontal(rng: np.random.Generator, radius: float) -> np.ndarray:
    """A horizontal vector (2,) in any direction, not longer than the radius."""
    angle = rng.uniform(0, 2 * math.pi)
    return radius * math.sqrt(rng.uniform()) * np.array([math.cos(angle), math.sin(angle)])
