"""Rotations as vectors, as matrices and as rot6d, for tensors of any leading shape.

    rotation vector (..., 3)  axis times angle in rad, also called axis-angle; principal value: angle in [0, pi]
    matrix (..., 3, 3)        R @ x turns the column x
    rot6d (..., 6)            the first two rows of the matrix, one after the other

All is computed in the input's type (float32 or float64), element by element and with no branch on values: it can be
captured in a CUDA graph, exported, and stays exact under autocast. Gradients are finite wherever the map has any.
"""

import torch
from torch import Tensor

__all__ = ["matrix_from_rot6d", "matrix_from_rotation_vector", "rot6d_from_matrix", "rotation_vector_from_matrix"]

_SMALL = 1e-8  # squared angle, rad^2, below which a term or two of the series are exact even in float64


def matrix_from_rotation_vector(vector: Tensor) -> Tensor:
    """(..., 3), of any angle, to (..., 3, 3): Rodrigues' formula cos I + sin [axis]_x + (1 - cos) axis axis^T."""
    squared = (vector * vector).sum(-1)[..., None, None]  # angle^2 (..., 1, 1)
    is_small = squared < _SMALL
    angle = torch.where(is_small, 1.0, squared).sqrt()  # the unused branch must have finite gradients, too
    sine = torch.where(is_small, 1 - squared / 6, angle.sin() / angle)  # sin(angle) / angle
    versine = torch.where(is_small, 0.5, 2 * ((angle / 2).sin() / angle) ** 2)  # (1 - cos) / angle^2
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack((zero, -z, y, z, zero, -x, -y, x, zero), -1).unflatten(-1, (3, 3))
    outer = vector[..., :, None] * vector[..., None, :]
    identity = torch.eye(3, dtype=vector.dtype, device=vector.device)
    return (1 - versine * squared) * identity + sine * cross + versine * outer


def rotation_vector_from_matrix(matrix: Tensor) -> Tensor:
    """(..., 3, 3) to the principal (..., 3): as exact near an angle of pi as near 0; at pi the sign is free.

    With the quaternion q = (w, x, y, z), the matrix holds every entry of 4 q q^T. Its row with the largest diagonal
    entry, normalised, is q or -q without cancellation (Shepperd 1978).
    """
    xx, xy, xz, yx, yy, yz, zx, zy, zz = matrix.flatten(-2).unbind(-1)
    products = torch.stack(
        (
            *(1 + xx + yy + zz, zy - yz, xz - zx, yx - xy),
            *(zy - yz, 1 + xx - yy - zz, xy + yx, xz + zx),
            *(xz - zx, xy + yx, 1 - xx + yy - zz, yz + zy),
            *(yx - xy, xz + zx, yz + zy, 1 - xx - yy + zz),
        ),
        -1,
    ).unflatten(-1, (4, 4))
    largest = products.diagonal(dim1=-2, dim2=-1).argmax(-1)[..., None, None]  # (..., 1, 1)
    quaternion = _unit(products.gather(-2, largest.expand(*largest.shape[:-1], 4)).squeeze(-2))
    w, xyz = quaternion[..., :1], quaternion[..., 1:]
    w, xyz = w.abs(), torch.where(w < 0, -xyz, xyz)  # the half angle in [0, pi / 2]
    squared = (xyz * xyz).sum(-1, keepdim=True)  # sin(angle / 2)^2
    is_small = squared < _SMALL
    sine = torch.where(is_small, 1.0, squared).sqrt()
    w_of_small = torch.where(is_small, w, 1.0)
    tangent_squared = squared / w_of_small**2
    half_over_sine = torch.where(is_small, (1 - tangent_squared / 3) / w_of_small, torch.atan2(sine, w) / sine)
    return 2 * half_over_sine * xyz


def rot6d_from_matrix(matrix: Tensor) -> Tensor:
    """(..., 3, 3) to (..., 6): the first two rows, as pytorch3d and Diffusion Policy have it (Zhou et al.: columns)."""
    return matrix[..., :2, :].flatten(-2)


def matrix_from_rot6d(rot6d: Tensor) -> Tensor:
    """(..., 6), any finite numbers, to a rotation (..., 3, 3): Gram-Schmidt on the two rows.

    Equations 14 and 15 of Zhou et al. (arXiv 1812.07035), for rows. Where the rows are zero or parallel to rounding,
    an axis of the frame stands in for what they do not determine; all zeros give the identity.
    """
    x_axis, y_axis, _ = torch.eye(3, dtype=rot6d.dtype, device=rot6d.device)
    first, second = _unit(rot6d[..., :3]), _unit(rot6d[..., 3:])
    first = torch.where((first != 0).any(-1, keepdim=True), first, x_axis)
    rejected = second - (first * second).sum(-1, keepdim=True) * first
    is_parallel = (rejected.abs() <= 8 * torch.finfo(rot6d.dtype).eps).all(-1, keepdim=True)  # or zero
    second = torch.where(is_parallel, torch.where(first[..., :1].abs() < 0.7, x_axis, y_axis), second)
    for _ in range(2):  # what rounding leaves of `first` in a nearly parallel row is gone after the second time
        second = _unit(second - (first * second).sum(-1, keepdim=True) * first)
    return torch.stack((first, second, torch.linalg.cross(first, second)), -2)


def _unit(vector: Tensor) -> Tensor:
    """Divide by the norm, without overflow or underflow; zero stays zero."""
    largest = vector.detach().abs().amax(-1, keepdim=True)
    is_zero = largest == 0
    vector = vector / torch.where(is_zero, 1.0, largest)
    squared = (vector * vector).sum(-1, keepdim=True)
    return vector / torch.where(is_zero, 1.0, squared).sqrt()
