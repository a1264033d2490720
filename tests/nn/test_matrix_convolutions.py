"""Convolutions as matrix products against torch's own, in float64."""

import pytest
import torch
from torch import nn

from shortcut_policy.nn.matrix_convolutions import MatrixConv1d, MatrixConvTranspose1d, with_matrix_convolutions
from shortcut_policy.nn.unet1d import Unet1d


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(5, 1, 2), (3, 2, 1), (1, 1, 0), (4, 3, 0)])
def test_convolution_is_torchs(kernel, stride, padding, bias):
    torch.manual_seed(0)
    convolution = nn.Conv1d(3, 7, kernel, stride, padding, bias=bias, dtype=torch.float64)
    x = torch.randn(2, 3, 16, dtype=torch.float64)
    torch.testing.assert_close(MatrixConv1d(convolution)(x), convolution(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("length", [1, 2, 8])
def test_transposed_convolution_is_torchs(length, bias):
    torch.manual_seed(0)
    convolution = nn.ConvTranspose1d(3, 7, 4, stride=2, padding=1, bias=bias, dtype=torch.float64)
    x = torch.randn(2, 3, length, dtype=torch.float64)
    torch.testing.assert_close(MatrixConvTranspose1d(convolution)(x), convolution(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("matrix", "convolution", "quoted"),
    [
        (MatrixConv1d, nn.Conv1d(4, 4, 3, groups=2), "2, 1"),
        (MatrixConv1d, nn.Conv1d(4, 4, 3, dilation=2), "1, 2"),
        (MatrixConv1d, nn.Conv1d(4, 4, 3, padding_mode="circular"), "circular"),
        (MatrixConv1d, nn.Conv1d(4, 4, 3, padding="same"), "same"),
        (MatrixConvTranspose1d, nn.ConvTranspose1d(4, 4, 3), r"\(3, 1, 0, 0\)"),
    ],
)
def test_another_kind_of_convolution_is_refused(matrix, convolution, quoted):
    with pytest.raises(ValueError, match=quoted):
        matrix(convolution)


def test_a_unet_predicts_the_same_without_a_convolution():
    torch.manual_seed(0)
    network = Unet1d(action_dim=2, horizon=16, condition_dim=5, widths=(16, 32, 64)).double()
    inputs = (torch.randn(3, 16, 2), torch.rand(3), torch.tensor([0.0, 0.5, 1.0]), torch.randn(3, 5))
    inputs = tuple(value.double() for value in inputs)
    expected = network(*inputs)
    replaced = with_matrix_convolutions(network)
    assert not any(isinstance(module, nn.Conv1d | nn.ConvTranspose1d) for module in replaced.modules())
    torch.testing.assert_close(replaced(*inputs), expected, rtol=1e-10, atol=1e-12)
