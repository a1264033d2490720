"""The transformer block of DiT (arXiv 2212.09748): its condition shifts, scales and gates (adaLN-Zero).

Shapes: B batch, N tokens, D width.
"""

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (B, N, D) with every channel scaled by 1 + scale (B, D) and shifted by shift (B, D)."""
    return x * (1.0 + scale[:, None]) + shift[:, None]


class Attention(nn.Module):
    """Multi-head self-attention.

    Args:
        dim: D.
        heads: they divide D.
        scale: factor on q k^T; None for one over the square root of a head's channels.
    """

    def __init__(self, dim: int, heads: int, scale: float | None = None) -> None:
        super().__init__()
        self.heads, self.scale = heads, scale
        self.qkv = nn.Linear(dim, 3 * dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) -> (B, N, D)."""
        q, k, v = rearrange(self.qkv(x), "b n (three h c) -> three b h n c", three=3, h=self.heads)
        mixed = functional.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.output(rearrange(mixed, "b h n c -> b n (h c)"))


class Block(nn.Module):
    """Attention and MLP, each after a norm that the condition shifts and scales, and behind a gate (adaLN-Zero).

    Args:
        dim: D.
        heads: of the attention.
        mlp_ratio: hidden channels of the MLP over D.
        scale: of the attention.
    """

    def __init__(self, dim: int, heads: int, mlp_ratio: float, scale: float | None = None) -> None:
        super().__init__()
        hidden = int(mlp_ratio * dim)
        self.norm = nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
        self.attention = Attention(dim, heads, scale)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, dim))
        self.modulation = nn.Linear(dim, 6 * dim)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, N, D), activated condition (B, D) -> (B, N, D)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(condition).chunk(6, dim=-1)
        x = x + gate_a[:, None] * self.attention(modulate(self.norm(x), shift_a, scale_a))
        return x + gate_m[:, None] * self.mlp(modulate(self.norm(x), shift_m, scale_m))
