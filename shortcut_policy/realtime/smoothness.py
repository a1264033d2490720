"""How smooth actions are at the joints between chunks."""

import numpy as np

__all__ = ["joint_roughness", "second_differences"]


def second_differences(actions: np.ndarray) -> np.ndarray:
    """|a_(i+1) - 2 a_i + a_(i-1)| of consecutive actions (N, A), i = 1 ... N - 2: (N - 2,), in the actions' units.

    0 where they go on as they went: of positions, an acceleration.
    """
    differences: np.ndarray = np.linalg.norm(np.diff(actions, 2, axis=0), axis=1)
    return differences


def joint_roughness(actions: np.ndarray, joints: list[int]) -> float | None:
    """How much rougher actions are across the joints between chunks than within the chunks.

    The mean second difference across a joint (both of those that have actions on either side of it), over the mean of
    all others. About 1 where no joint can be told from the actions.

    Args:
        actions: (N, A) as they were executed, one after the other.
        joints: indices of the first actions of new chunks.

    Returns:
        None where there is no joint within the actions, or nothing else to compare it with, or that is all straight.
    """
    rough = second_differences(actions)
    across = np.zeros(len(rough), bool)  # entry i belongs to the actions i, i + 1 and i + 2
    for joint in joints:
        if 0 < joint < len(actions):
            across[max(0, joint - 2) : joint] = True
    if not across.any() or across.all() or not rough[~across].mean() > 0:
        return None
    return float(rough[across].mean() / rough[~across].mean())
