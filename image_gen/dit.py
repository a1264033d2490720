"""The diffusion transformer (Peebles & Xie, arXiv 2212.09748), told the step size as well.

Shapes: B batch, C image channels, H x W pixels or latents, P patch size, N = (H / P)(W / P) tokens, D width.
"""

import math
from collections.abc import Mapping
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from shortcut_policy.nn.adaln_block import Block, modulate
from shortcut_policy.nn.embeddings import SinusoidalEmbedding, StepSizeEmbedding

EMBEDDING_DIM = 256
"""Channels of the sinusoids of t and of log2(1/d), as in the paper's code."""

Compatibility = Literal["official"]


def position_embedding(dim: int, side: int) -> Tensor:
    """Fixed 2-D sinusoids (side^2, dim), row by row: half of the channels for the column, half for the row.

    Raises:
        ValueError: dim is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"the width must be a multiple of 4 for 2-D sinusoids, got {dim}")
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
    angles = torch.arange(side, dtype=torch.float64)[:, None] * frequencies  # (side, dim / 4)
    line = torch.cat([angles.sin(), angles.cos()], dim=1)  # (side, dim / 2)
    column, row = line.repeat(side, 1), line.repeat_interleave(side, dim=0)
    return torch.cat([column, row], dim=1).float()


class LevelEmbedding(nn.Module):
    """(B,) step sizes in (0, 1] -> (B, dim): sinusoids of the level log2(1/d), as in the paper's code.

    There is no step of size 0: the objective must tell the flow as its smallest step.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.level = SinusoidalEmbedding(dim)

    def forward(self, d: Tensor) -> Tensor:
        """Embed d (B,): (B, dim)."""
        embedded: Tensor = self.level(-torch.log2(d))
        return embedded


class DiT(nn.Module):
    """Predicts for an image x (B, C, H, W) at times t, step sizes d and class labels.

    The condition is a tensor of labels (B,) int64; `num_classes` is the null label. At the beginning every block is the
    identity and the prediction is 0.

    With `compatibility="official"` it is the network of the paper's code (github.com/kvfrans/shortcut-models), which
    differs in four things: t enters its sinusoids as it is, in [0, 1], not times 1000; d = 0 has no embedding; the
    attention divides q k^T by a head's channels, not by their square root; and blocks do not begin as the identity.

    Args:
        channels: C.
        size: H = W.
        num_classes: K; 0 for images without labels, which then all carry the null label.
        patch: P; divides the size.
        width: D, a multiple of 4 and of `heads`.
        depth: number of blocks.
        heads: of the attention.
        mlp_ratio: hidden channels of the MLPs over D.
        checkpointing: whether activations are computed again in the backward pass instead of being kept.
        compatibility: "official" or None.

    Raises:
        ValueError: sizes do not fit; the message quotes them.
    """

    def __init__(
        self,
        channels: int,
        size: int,
        num_classes: int,
        patch: int = 2,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_ratio: float = 4.0,
        checkpointing: bool = False,
        compatibility: Compatibility | None = None,
    ) -> None:
        super().__init__()
        if min(channels, size, patch, width, depth, heads) < 1 or num_classes < 0:
            raise ValueError(
                "channels, size, patch, width, depth and heads must be positive and num_classes not negative, got "
                f"{channels}, {size}, {patch}, {width}, {depth}, {heads} and {num_classes}"
            )
        if size % patch:
            raise ValueError(f"patch={patch} must divide the image's size of {size}")
        if width % heads:
            raise ValueError(f"heads={heads} must divide width={width}")
        if compatibility not in (None, "official"):
            raise ValueError(f"compatibility must be official or null, got {compatibility!r}")
        official = compatibility == "official"
        self.patch, self.side, self.num_classes, self.checkpointing = patch, size // patch, num_classes, checkpointing
        self.patches = nn.Conv2d(channels, width, patch, stride=patch)
        self.register_buffer("position", position_embedding(width, self.side), persistent=False)
        sinusoids = SinusoidalEmbedding(EMBEDDING_DIM, scale=1.0 if official else 1000.0)
        sizes = LevelEmbedding(EMBEDDING_DIM) if official else StepSizeEmbedding(EMBEDDING_DIM)
        self.time = nn.Sequential(sinusoids, *_mlp(width))
        self.step_size = nn.Sequential(sizes, *_mlp(width))
        self.label = nn.Embedding(num_classes + 1, width)
        scale = heads / width if official else None
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio, scale) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, patch * patch * channels)
        self._initialise(zero_blocks=not official)

    def encode(self, condition: Tensor) -> Tensor:
        """Labels (B,) int64 in 0 ... K -> (B, D)."""
        encoded: Tensor = self.label(condition)
        return encoded

    def forward(self, x: Tensor, t: Tensor, d: Tensor, encoded: Tensor) -> Tensor:
        """x (B, C, H, W), t (B,), d (B,), encoded labels (B, D) -> (B, C, H, W)."""
        condition = functional.silu(self.time(t) + self.step_size(d) + encoded)
        h = rearrange(self.patches(x), "b c h w -> b (h w) c") + self.position
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                h = checkpoint(block, h, condition, use_reentrant=False)
            else:
                h = block(h, condition)
        h = self.output(modulate(self.norm(h), *self.modulation(condition).chunk(2, dim=-1)))
        return rearrange(h, "b (h w) (p q c) -> b c (h p) (w q)", h=self.side, p=self.patch, q=self.patch)

    def _initialise(self, zero_blocks: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        nn.init.xavier_uniform_(self.patches.weight.view(len(self.patches.weight), -1))
        nn.init.zeros_(self.patches.bias)
        nn.init.normal_(self.label.weight, std=0.02)
        for linear in (self.time[1], self.time[3], self.step_size[1], self.step_size[3]):
            nn.init.normal_(linear.weight, std=0.02)
        gates = [block.modulation for block in self.blocks] if zero_blocks else []
        for module in (*gates, self.modulation, self.output):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)


def _mlp(width: int) -> tuple[nn.Module, ...]:
    return nn.Linear(EMBEDDING_DIM, width), nn.SiLU(), nn.Linear(width, width)


IMAGE_NETWORKS: Mapping[str, type[nn.Module]] = {"dit": DiT}
