import pytest
import torch

from shortcut_policy.core.interpolant import Interpolant

SHAPES = [(5, 16, 2), (5, 3, 8, 8)]


@pytest.mark.parametrize("shape", SHAPES)
def test_path_runs_from_noise_to_data(shape):
    noise, data = torch.randn(2, *shape, dtype=torch.float64)
    path = Interpolant()
    assert torch.equal(path.point(noise, data, torch.zeros(5)), noise)
    assert torch.equal(path.point(noise, data, torch.ones(5)), data)


@pytest.mark.parametrize("shape", SHAPES)
def test_velocity_is_the_derivative_of_the_path(shape):
    path = Interpolant(sigma_min=0.1)
    noise, data = torch.randn(2, *shape, dtype=torch.float64)
    t = torch.rand(5, dtype=torch.float64)
    _, derivative = torch.func.jvp(lambda t: path.point(noise, data, t), (t,), (torch.ones_like(t),))
    torch.testing.assert_close(path.velocity(noise, data), derivative)


def test_sigma_min_is_the_noise_left_at_the_end():
    noise, data = torch.randn(2, 1000, 4, dtype=torch.float64)
    end = Interpolant(sigma_min=0.25).point(noise, data, torch.ones(1000))
    torch.testing.assert_close(end - data, 0.25 * noise)


@pytest.mark.parametrize("sigma_min", [-0.1, 1.0])
def test_sigma_min_out_of_range_is_refused(sigma_min):
    with pytest.raises(ValueError, match=str(sigma_min)):
        Interpolant(sigma_min)
