import numpy as np
import pytest

from envs.object_state import ObjectState, poses_first

# robosuite 1.5.2's sensors of objects, in its order.
LIFT = ["cube_pos", "cube_quat", "gripper_to_cube_pos"]
CAN = ["Can_to_robot0_eef_pos", "Can_to_robot0_eef_quat", "Can_pos", "Can_quat"]
TRANSPORT = [
    *(f"{body}_{part}" for body in ("payload", "trash", "lid_handle") for part in ("pos", "quat")),
    *("target_bin_pos", "trash_bin_pos", "payload_in_target_bin", "trash_in_trash_bin"),
    *("gripper0_to_payload", "gripper0_to_lid_handle", "gripper1_to_payload", "gripper1_to_trash"),
]


def composed(names, **options):
    """The vector made of sensors that each show their number in robosuite 1.5's order, from 1 up."""
    return ObjectState(names, **options)({name: np.float64(i + 1) for i, name in enumerate(names)}).tolist()


@pytest.mark.parametrize("names", [LIFT, CAN, TRANSPORT])
def test_the_installed_order_stands(names):
    assert composed(names) == list(range(1, len(names) + 1))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (LIFT, [1, 2, -3]),
        (CAN, [3, 4, 1, 2]),
        (TRANSPORT, [*range(1, 9), 11, 12, 13, 14, 9, 10]),
        # ToolHang's relative poses follow their own object, and its flags stay last
        (
            ["a_to_robot0_eef_pos", "a_pos", "a_quat", "b_to_robot0_eef_pos", "b_pos", "b_quat", "ok"],
            [2, 3, 1, 5, 6, 4, 7],
        ),
    ],
)
def test_version_1_4_is_imitated(names, expected):
    assert composed(names, as_before_1_5=True) == expected


def test_sensors_without_the_pose_they_need_keep_their_place():
    names = ["a_to_robot0_eef_pos", "x_quat", "b"]
    assert poses_first(names) == names


def test_the_vector_is_float32_and_joins_numbers_and_arrays():
    vector = ObjectState(["flag", "pos"])({"flag": np.float64(1), "pos": np.arange(3.0)})
    assert vector.dtype == np.float32
    assert vector.tolist() == [1, 0, 1, 2]
