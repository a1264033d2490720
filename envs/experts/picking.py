"""Picking a thing up from above."""

from collections.abc import Callable
from typing import Any

import numpy as np

from envs.experts.motion import Arm, Motion, Pose, Settings, horizontal

__all__ = ["pick"]

_ATTEMPTS = 3


def pick(
    arm: Arm,
    thing: Any,
    grasp: Callable[[], Pose],
    rng: np.random.Generator,
    settings: Settings,
    clearance: float = 0.0,
) -> Motion:
    """Swing over to a thing, descend on it and close the fingers; what was missed is tried again, three times in all.

    Args:
        arm: with open fingers.
        thing: robosuite's model of it.
        grasp: looks up where the hand must be to grasp it.
        rng: draws the swing and the point above the thing where the descent begins.
        settings: from what it draws them.
        clearance: by which this point is to lie higher than the style's hover, m.
    """
    hover = grasp().shifted(*horizontal(rng, settings.hover_offset), arm.style.hover + clearance)
    middle = (arm.goal.pose.position + hover.position) / 2
    bulge = (*horizontal(rng, settings.bulge), rng.uniform(0, settings.bulge))
    yield from arm.move(hover, via=[middle + bulge], distance=0.02, angle=0.2)
    for attempt in range(1, _ATTEMPTS + 1):
        yield from arm.move(grasp(), distance=0.012)
        yield from arm.close()
        if arm.holds(thing) or attempt == _ATTEMPTS:
            return
        yield from arm.open()
        yield from arm.move(hover, distance=0.02)
