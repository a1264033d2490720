"""Convolutions over few positions as one matrix product each, for answers of one robot, or a few, on a CPU.

A chunk has 16 positions, on the U-Net's lowest stage 4. There the time of a convolution is that of reading its weights,
which a product of matrices does nearly at the memory's speed, and a convolution routine, made for many positions, does
not. The weights are laid out once as the product reads them.
"""

from torch import Tensor, nn
from torch.nn import functional

__all__ = ["MatrixConv1d", "MatrixConvTranspose1d", "with_matrix_convolutions"]


class MatrixConv1d(nn.Module):
    """What an `nn.Conv1d` computes, (B, C_in, T) -> (B, C_out, T'): windows of the input times a matrix.

    Args:
        convolution: the original; its weights are copied, and do not learn.

    Raises:
        ValueError: it has groups, a dilation, or pads with something else than zeros.
    """

    def __init__(self, convolution: nn.Conv1d) -> None:
        super().__init__()
        _require_plain(convolution)
        if not isinstance(convolution.padding[0], int):
            raise ValueError(f"padding={convolution.padding!r} is not given in positions")
        self.kernel_size, self.stride, self.padding = (
            convolution.kernel_size[0],
            convolution.stride[0],
            convolution.padding[0],
        )
        self.weight = _frozen(convolution.weight.permute(0, 2, 1).flatten(1))  # (C_out, k C_in)
        self.bias = None if convolution.bias is None else _frozen(convolution.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T) -> (B, C_out, T')."""
        windows = functional.pad(x, (self.padding, self.padding)).unfold(2, self.kernel_size, self.stride)
        rows = windows.permute(0, 2, 3, 1).flatten(2)  # of windows (B, C_in, T', k)
        return functional.linear(rows, self.weight, self.bias).transpose(1, 2)


class MatrixConvTranspose1d(nn.Module):
    """What an `nn.ConvTranspose1d` with kernel 4, stride 2 and padding 1 computes, (B, C_in, T) -> (B, C_out, 2T).

    Two neighbours of the input make two of the output: y_2i = W_3 x_(i-1) + W_1 x_i, y_(2i+1) = W_2 x_i + W_0 x_(i+1).

    Args:
        convolution: the original; its weights are copied, and do not learn.

    Raises:
        ValueError: it has another kernel, stride or padding.
    """

    def __init__(self, convolution: nn.ConvTranspose1d) -> None:
        super().__init__()
        _require_plain(convolution)
        shape = (*convolution.kernel_size, *convolution.stride, *convolution.padding, *convolution.output_padding)
        if shape != (4, 2, 1, 0):
            raise ValueError(f"kernel, stride, padding and output padding must be (4, 2, 1, 0), got {shape}")
        self.weight = _frozen(convolution.weight.permute(2, 1, 0).flatten(0, 1))  # (4 C_out, C_in)
        self.bias = None if convolution.bias is None else _frozen(convolution.bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, T) -> (B, C_out, 2T)."""
        product = functional.linear(x.transpose(1, 2), self.weight).transpose(1, 2)
        parts = product.unflatten(1, (4, -1))  # (B, 4, C_out, T)
        before = functional.pad(parts[:, 3, :, :-1], (1, 0))
        after = functional.pad(parts[:, 0, :, 1:], (0, 1))
        even, odd = before + parts[:, 1], parts[:, 2] + after
        y = functional.pad(even[..., None], (0, 1)) + functional.pad(odd[..., None], (1, 0))  # (B, C_out, T, 2)
        return y.flatten(2) if self.bias is None else y.flatten(2) + self.bias[:, None]


def with_matrix_convolutions(network: nn.Module) -> nn.Module:
    """Replace the one-dimensional convolutions of a network, in place, by equal matrix products.

    Those of a kind that has none here stay as they are.
    """
    for name, child in network.named_children():
        try:
            if isinstance(child, nn.Conv1d):
                setattr(network, name, MatrixConv1d(child))
            elif isinstance(child, nn.ConvTranspose1d):
                setattr(network, name, MatrixConvTranspose1d(child))
            else:
                with_matrix_convolutions(child)
        except ValueError:
            continue
    return network


def _require_plain(convolution: nn.Conv1d | nn.ConvTranspose1d) -> None:
    found = (convolution.groups, convolution.dilation[0], convolution.padding_mode)
    if found != (1, 1, "zeros"):
        raise ValueError(f"groups, dilation and padding mode must be (1, 1, 'zeros'), got {found}")


def _frozen(values: Tensor) -> nn.Parameter:
    return nn.Parameter(values.detach().clone().contiguous(), requires_grad=False)
