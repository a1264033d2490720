"""A transformer over the steps of an action chunk, conditioned as DiT is (Peebles & Xie, arXiv 2212.09748).

Shapes: B batch, T horizon, A action channels, G conditioning channels, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from shortcut_policy.nn.adaln_block import Block, modulate
from shortcut_policy.nn.embeddings import TimeStepEmbedding


class ActionTransformer(nn.Module):
    """Predicts for an action chunk x (B, T, A) at times t, step sizes d and a condition (B, G).

    Every step of the chunk is a token that attends to all others; time, step size and observation shift, scale and gate
    every block. At the beginning every block is the identity and the prediction is 0.

    Args:
        action_dim: A.
        horizon: T.
        condition_dim: G, channels of the encoded observation.
        width: D, a multiple of `heads`.
        depth: number of blocks.
        heads: of the attention.
        mlp_ratio: hidden channels of the MLPs over D.
        step_embedding_dim: channels of the embedding of (t, d).
        extra_channels: further channels of x that come last and are not predicted, such as a mask.

    Raises:
        ValueError: sizes do not fit; the message quotes them.
    """

    def __init__(
        self,
        action_dim: int,
        horizon: int,
        condition_dim: int,
        width: int = 256,
        depth: int = 8,
        heads: int = 4,
        mlp_ratio: float = 4.0,
        step_embedding_dim: int = 256,
        extra_channels: int = 0,
    ) -> None:
        super().__init__()
        if min(horizon, width, depth, heads) < 1 or mlp_ratio <= 0:
            raise ValueError(
                "horizon, width, depth, heads and mlp_ratio must be positive, got "
                f"{horizon}, {width}, {depth}, {heads} and {mlp_ratio}"
            )
        if width % heads:
            raise ValueError(f"heads={heads} must divide width={width}")
        self.input = nn.Linear(action_dim + extra_channels, width)
        self.position = nn.Parameter(0.02 * torch.randn(horizon, width))
        self.embedding = TimeStepEmbedding(step_embedding_dim)
        self.condition = nn.Sequential(
            nn.Linear(step_embedding_dim + condition_dim, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, action_dim)
        for module in (*(block.modulation for block in self.blocks), self.modulation, self.output):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, t: Tensor, d: Tensor, condition: Tensor) -> Tensor:
        """x (B, T, A + extra channels), t (B,), d (B,), condition (B, G) -> (B, T, A).

        Raises:
            ValueError: the chunk has another horizon than the network.
        """
        if x.shape[1] != len(self.position):
            raise ValueError(f"the chunk must have the network's horizon of {len(self.position)}, got {x.shape[1]}")
        given = functional.silu(self.condition(torch.cat([self.embedding(t, d), condition], dim=-1)))
        h = self.input(x) + self.position
        for block in self.blocks:
            h = block(h, given)
        prediction: Tensor = self.output(modulate(self.norm(h), *self.modulation(given).chunk(2, dim=-1)))
        return prediction
