"""A small residual MLP for data that are vectors: for seeing an objective at work in two dimensions."""

from torch import Tensor, nn

from shortcut_policy.core.network import Condition
from shortcut_policy.nn.embeddings import TimeStepEmbedding


class VectorNetwork(nn.Module):
    """Predicts (B, D) from x (B, D), times t and step sizes d, without a condition.

    Args:
        dim: D.
        width: channels of the hidden layers.
        blocks: residual blocks, each of two linear layers with the embedding of (t, d) added between them.
        step_embedding_dim: channels of that embedding, even.

    Raises:
        ValueError: a size is not positive; the message quotes it.
    """

    def __init__(self, dim: int = 2, width: int = 128, blocks: int = 4, step_embedding_dim: int = 64) -> None:
        super().__init__()
        if min(dim, width, blocks) < 1:
            raise ValueError(f"dim, width and blocks must be positive, got {dim}, {width} and {blocks}")
        self.embedding = TimeStepEmbedding(step_embedding_dim)
        self.activation = nn.Mish()
        self.input = nn.Linear(dim, width)
        self.first = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.step = nn.ModuleList(nn.Linear(step_embedding_dim, width) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Linear(width, width) for _ in range(blocks))
        self.output = nn.Linear(width, dim)

    def encode(self, condition: Condition) -> None:
        """There is no condition to encode."""

    def forward(self, x: Tensor, t: Tensor, d: Tensor, encoded: Condition = None) -> Tensor:
        """x (B, D), t (B,), d (B,) -> (B, D)."""
        step = self.activation(self.embedding(t, d))
        h = self.input(x)
        for first, shift, second in zip(self.first, self.step, self.second, strict=True):
            h = h + second(self.activation(first(h) + shift(step)))
        output: Tensor = self.output(h)
        return output
