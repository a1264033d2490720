import numpy as np
import pytest

from shortcut_policy.config import from_mapping
from shortcut_policy.data.array_source import ArraySource, extract

VALUES = np.arange(12, dtype=np.float64).reshape(3, 4)


def test_an_empty_name_is_the_observations_own_key():
    assert from_mapping(ArraySource, {}).named("object") == ArraySource("object")
    assert ArraySource(columns=(0, 2)).named("object") == ArraySource("object", (0, 2))
    assert ArraySource("policy/joint_pos").named("object") == ArraySource("policy/joint_pos")


def test_extract_cuts_columns_and_flattens():
    whole = extract(VALUES, ArraySource("state"))
    assert whole.dtype == np.float32
    assert whole.tolist() == VALUES.tolist()
    assert extract(VALUES, ArraySource("state", (1, 3))).tolist() == [[1, 2], [5, 6], [9, 10]]
    points = VALUES.reshape(3, 2, 2)
    assert extract(points, ArraySource("points")).tolist() == VALUES.tolist()
    assert extract(points, ArraySource("points", (1, 2))).tolist() == [[1, 3], [5, 7], [9, 11]]
    assert extract(VALUES[:0], ArraySource("state", (1, 3))).shape == (0, 2)


def test_cosine_and_sine_stand_next_to_each_other():
    angles = np.array([[0, np.pi / 2], [np.pi, 0]])
    np.testing.assert_allclose(
        extract(angles, ArraySource("angle", transform="cos_sin")), [[1, 0, 0, 1], [-1, 0, 1, 0]], atol=1e-6
    )


def test_extract_refuses_columns_that_are_not_there():
    with pytest.raises(ValueError, match="columns 2:5 of state exceed its last axis of 4"):
        extract(VALUES, ArraySource("state", (2, 5)))


@pytest.mark.parametrize("columns", [(2, 2), (-1, 2), (3, 1), (1,)])
def test_refuses_columns(columns):
    with pytest.raises(ValueError, match="columns of 'state' must be"):
        ArraySource("state", columns)
    with pytest.raises(ValueError, match="columns must be"):
        ArraySource(columns=columns)


def test_refuses_transform():
    with pytest.raises(ValueError, match="must be 'none' or 'cos_sin', not 'sin'"):
        ArraySource("state", transform="sin")
