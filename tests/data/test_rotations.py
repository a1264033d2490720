import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from shortcut_policy.data.rotations import (
    matrix_from_rot6d,
    matrix_from_rotation_vector,
    rot6d_from_matrix,
    rotation_vector_from_matrix,
)

TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6}

axes = st.one_of(
    st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda axis: np.linalg.norm(axis) > 1e-3),
    st.sampled_from([(1, 0, 0), (0, -1, 0), (0, 0, 1), (1, 1, 0), (-1, 1e-9, 0), (1, -1, 1), (1e-8, 1, -1e-5)]),
)
angles = st.one_of(
    st.floats(0, np.pi),
    st.floats(-16, -1).map(lambda exponent: 10**exponent),
    st.floats(-16, -1).map(lambda exponent: np.pi - 10**exponent),
    st.sampled_from([0.0, np.pi, np.pi / 2, 1e-4, 2e-4, 1e-160]),
)


@st.composite
def vectors(draw):
    axis = np.array(draw(axes), np.float64)
    return draw(angles) * axis / np.linalg.norm(axis)


@pytest.mark.parametrize("dtype", TOLERANCE)
@given(vector=vectors())
@settings(deadline=None, max_examples=200)
def test_agrees_with_scipy(dtype, vector):
    tolerance = TOLERANCE[dtype]
    expected = Rotation.from_rotvec(vector).as_matrix()
    matrix = matrix_from_rotation_vector(torch.tensor(vector, dtype=dtype))
    assert matrix.dtype == dtype
    np.testing.assert_allclose(matrix, expected, atol=tolerance)

    back = rotation_vector_from_matrix(torch.tensor(expected, dtype=dtype))
    assert back.dtype == dtype
    np.testing.assert_allclose(Rotation.from_rotvec(back.double().numpy()).as_matrix(), expected, atol=tolerance)
    angle = float(back.norm())
    assert angle <= np.pi * (1 + tolerance)
    assert angle == pytest.approx(np.linalg.norm(vector), abs=2 * tolerance)
    if np.linalg.norm(vector) < 3.0:  # far from pi the vector itself is determined
        np.testing.assert_allclose(back, vector, atol=4 * tolerance)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("angle", [1e-12, 1e-7, 1e-5, 9.9e-5, 1.01e-4, 1.9e-4, 2.1e-4, 1e-3])
def test_small_angles_keep_their_digits(dtype, angle):
    vector = angle * torch.tensor([0.6, -0.48, 0.64], dtype=dtype)  # a unit vector
    back = rotation_vector_from_matrix(matrix_from_rotation_vector(vector))
    torch.testing.assert_close(back, vector, rtol=8 * torch.finfo(dtype).eps, atol=0)


def test_known_answers():
    quarter = torch.tensor([0.0, 0.0, torch.pi / 2], dtype=torch.float64)
    matrix = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)  # turns x to y
    torch.testing.assert_close(matrix_from_rotation_vector(quarter), matrix)
    torch.testing.assert_close(rotation_vector_from_matrix(matrix), quarter)
    assert rot6d_from_matrix(matrix).tolist() == [0, -1, 0, 1, 0, 0], "rows, not columns"
    half = torch.diag(torch.tensor([1.0, -1, -1]))  # a gripper that points down
    assert rotation_vector_from_matrix(half).abs().tolist() == pytest.approx([torch.pi, 0, 0])
    three_quarters = matrix_from_rotation_vector(3 * quarter)
    torch.testing.assert_close(rotation_vector_from_matrix(three_quarters), -quarter)  # the principal value


@given(vector=vectors(), scale=st.tuples(*[st.sampled_from([1e-30, 1e-3, 1.0, 7.0, 1e30])] * 2), shear=st.floats(-9, 9))
@settings(deadline=None)
def test_gram_schmidt_undoes_scale_and_shear_of_the_rows(vector, scale, shear):
    matrix = torch.tensor(Rotation.from_rotvec(vector).as_matrix())
    torch.testing.assert_close(matrix_from_rot6d(rot6d_from_matrix(matrix)), matrix, rtol=0, atol=1e-14)
    first, second = matrix[:2]
    distorted = torch.cat((scale[0] * first, scale[1] * (second + shear * first)))
    torch.testing.assert_close(matrix_from_rot6d(distorted), matrix, rtol=0, atol=1e-13)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize(
    "rows",
    [
        (0, 0, 0, 0, 0, 0),
        (0, 0, 0, 1, 2, 3),
        (0, 0, 0, 1, 0, 0),
        (1, 2, 3, 0, 0, 0),
        (1, 2, 3, 2, 4, 6),
        (0.1, 0.2, 0.3, -0.2, -0.4, -0.6),
        (3, 0, 0, 1, 0, 0),
        (1, 1, 1, 1, 1, 1 + 3e-7),
        (1, 0, 0, 1, 1e-6, 0),
        (1e-40, 0, 0, 0, 1e-40, 0),
        (1e38, 1e38, 1e38, -1e38, 1e38, 1e38),
    ],
)
def test_any_six_numbers_become_a_rotation(dtype, rows):
    rot6d = torch.tensor(rows, dtype=dtype, requires_grad=True)
    matrix = matrix_from_rot6d(rot6d)
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(3, dtype=dtype), rtol=0, atol=TOLERANCE[dtype])
    assert torch.det(matrix).item() == pytest.approx(1, abs=1e-5)
    assert rotation_vector_from_matrix(matrix).isfinite().all()
    if any(rows[:3]):
        first = torch.tensor(rows[:3], dtype=torch.float64)
        torch.testing.assert_close(matrix[0].double(), first / first.norm(), rtol=0, atol=1e-6)
    if max(rows) in (3, 6):  # of ordinary size
        matrix.square().sum().backward()
        assert rot6d.grad.isfinite().all()


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_parallel_rows_become_a_rotation_however_they_are_rounded(dtype):
    generator = torch.Generator().manual_seed(0)
    first, factor = (torch.randn(20_000, dim, dtype=dtype, generator=generator) for dim in (3, 1))
    matrix = matrix_from_rot6d(torch.cat((first, factor * first), -1))
    expected = torch.eye(3, dtype=dtype).expand_as(matrix)
    torch.testing.assert_close(matrix @ matrix.mT, expected, rtol=0, atol=TOLERANCE[dtype])


def test_all_zeros_become_the_identity():
    assert torch.equal(matrix_from_rot6d(torch.zeros(2, 6)), torch.eye(3).expand(2, 3, 3))


@pytest.mark.parametrize("leading", [(), (0,), (3,), (2, 0, 3), (2, 3, 4)])
def test_any_leading_shape(leading):
    vector = torch.randn(*leading, 3, generator=torch.Generator().manual_seed(0))
    matrix = matrix_from_rotation_vector(vector)
    rot6d = rot6d_from_matrix(matrix)
    assert (matrix.shape, rot6d.shape) == ((*leading, 3, 3), (*leading, 6))
    back = rotation_vector_from_matrix(matrix_from_rot6d(rot6d))
    assert back.shape == vector.shape
    one_by_one = [matrix_from_rotation_vector(row) for row in vector.reshape(-1, 3)]
    if one_by_one:
        torch.testing.assert_close(matrix.reshape(-1, 3, 3), torch.stack(one_by_one))
        torch.testing.assert_close(matrix_from_rotation_vector(back), matrix, rtol=0, atol=1e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.3, 2.0, 3.1])
def test_gradients_are_those_of_finite_differences(angle):
    vector = angle * torch.tensor([0.6, -0.48, 0.64], dtype=torch.float64)
    matrix, rot6d = matrix_from_rotation_vector(vector), rot6d_from_matrix(matrix_from_rotation_vector(vector))
    for function, value in (
        (matrix_from_rotation_vector, vector),
        (matrix_from_rot6d, 1.5 * rot6d),
        (lambda six: rotation_vector_from_matrix(matrix_from_rot6d(six)), rot6d),
        (lambda three: rotation_vector_from_matrix(matrix_from_rotation_vector(three)), vector),
    ):
        assert torch.autograd.gradcheck(function, value.clone().requires_grad_())
    assert matrix.isfinite().all()


def test_is_exported_without_branches_on_values():
    class Decoder(torch.nn.Module):
        def forward(self, rot6d):
            return rotation_vector_from_matrix(matrix_from_rot6d(rot6d))

    example = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    exported = torch.export.export(Decoder(), (example,)).module()
    for rot6d in (torch.zeros(4, 6), torch.eye(6)[:4], -example, torch.tensor([[1.0, 0, 0, 0, -1, 0]]).expand(4, 6)):
        torch.testing.assert_close(exported(rot6d), Decoder()(rot6d))
