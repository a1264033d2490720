"""The conditional 1-D U-Net of Diffusion Policy (Chi et al., arXiv 2303.04137), told the step size as well.

Shapes: B batch, T horizon, A action channels, C channels of a stage, G conditioning channels.
"""

from collections.abc import Sequence

import torch
from einops import rearrange
from torch import Tensor, nn

from shortcut_policy.nn.embeddings import TimeStepEmbedding


class ConvBlock(nn.Sequential):
    """Conv1d, GroupNorm, Mish; keeps the length."""

    def __init__(self, channels_in: int, channels_out: int, kernel_size: int, groups: int) -> None:
        super().__init__(
            nn.Conv1d(channels_in, channels_out, kernel_size, padding=kernel_size // 2),
            nn.GroupNorm(groups, channels_out),
            nn.Mish(),
        )


class ResidualBlock(nn.Module):
    """Two convolutions with FiLM (Perez et al., arXiv 1709.07871) between them, plus the input.

    Args:
        film_scale: whether the condition scales the channels as well as shifting them.
    """

    def __init__(
        self, channels_in: int, channels_out: int, condition_dim: int, kernel_size: int, groups: int, film_scale: bool
    ) -> None:
        super().__init__()
        self.first = ConvBlock(channels_in, channels_out, kernel_size, groups)
        self.second = ConvBlock(channels_out, channels_out, kernel_size, groups)
        self.film_scale = film_scale
        self.film = nn.Linear(condition_dim, channels_out * (2 if film_scale else 1))
        self.skip = nn.Conv1d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """x (B, C_in, T), activated condition (B, G) -> (B, C_out, T)."""
        hidden = self.first(x)
        film = self.film(condition)[:, :, None]  # (B, C_out or 2 C_out, 1)
        if self.film_scale:
            scale, shift = film.chunk(2, dim=1)
            hidden = scale * hidden + shift
        else:
            hidden = hidden + film
        return self.second(hidden) + self.skip(x)


class Unet1d(nn.Module):
    """Predicts for an action chunk x (B, T, A) at times t, step sizes d and a condition (B, G).

    Args:
        action_dim: A.
        horizon: T, a multiple of 2^(len(widths) - 1).
        condition_dim: G, channels of the encoded observation.
        widths: channels of the stages; [256, 512, 1024] is Diffusion Policy's.
        step_embedding_dim: channels of the embedding of (t, d).
        kernel_size: odd.
        groups: of GroupNorm; divides every width.
        film_scale: see `ResidualBlock`.
        extra_channels: further channels of x that come last and are not predicted, such as a mask.

    Raises:
        ValueError: horizon, kernel size, groups or widths do not fit; the message quotes them.
    """

    def __init__(
        self,
        action_dim: int,
        horizon: int,
        condition_dim: int,
        widths: Sequence[int] = (256, 512, 1024),
        step_embedding_dim: int = 256,
        kernel_size: int = 5,
        groups: int = 8,
        film_scale: bool = True,
        extra_channels: int = 0,
    ) -> None:
        super().__init__()
        if groups < 1:
            raise ValueError(f"groups must be positive, got {groups}")
        if not widths or any(width < 1 or width % groups for width in widths):
            raise ValueError(f"every width must be a positive multiple of groups={groups}, got {list(widths)}")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
        self.downsampling = 2 ** (len(widths) - 1)
        self._check_horizon(horizon)

        self.embedding = TimeStepEmbedding(step_embedding_dim)
        self.activation = nn.Mish()

        def block(channels_in: int, channels_out: int) -> ResidualBlock:
            total = step_embedding_dim + condition_dim
            return ResidualBlock(channels_in, channels_out, total, kernel_size, groups, film_scale)

        inputs = [action_dim + extra_channels, *widths[:-1]]
        self.down = nn.ModuleList(
            nn.ModuleList([block(i, o), block(o, o)]) for i, o in zip(inputs, widths, strict=True)
        )
        self.downsample = nn.ModuleList(nn.Conv1d(c, c, 3, stride=2, padding=1) for c in widths[:-1])
        self.middle = nn.ModuleList([block(widths[-1], widths[-1]), block(widths[-1], widths[-1])])
        pairs = list(zip(widths[1:], widths[:-1], strict=True))[::-1]
        self.up = nn.ModuleList(nn.ModuleList([block(2 * i, o), block(o, o)]) for i, o in pairs)
        self.upsample = nn.ModuleList(nn.ConvTranspose1d(o, o, 4, stride=2, padding=1) for _, o in pairs)
        self.output = nn.Sequential(
            ConvBlock(widths[0], widths[0], kernel_size, groups), nn.Conv1d(widths[0], action_dim, 1)
        )

    def forward(self, x: Tensor, t: Tensor, d: Tensor, condition: Tensor) -> Tensor:
        """x (B, T, A + extra channels), t (B,), d (B,), condition (B, G) -> (B, T, A)."""
        self._check_horizon(x.shape[1])
        h = rearrange(x, "b t a -> b a t")
        # every block begins with Mish on the same vector: once is enough
        film = self.activation(torch.cat([self.embedding(t, d), condition], dim=-1))  # (B, E + G)

        skips = []
        for stage, blocks in enumerate(self.down):
            for block in blocks:
                h = block(h, film)
            if stage < len(self.downsample):
                skips.append(h)
                h = self.downsample[stage](h)
        skips.append(h)  # Diffusion Policy joins the output of the last stage, not that of the one before
        for block in self.middle:
            h = block(h, film)
        for blocks, upsample in zip(self.up, self.upsample, strict=True):
            h = torch.cat([h, skips.pop()], dim=1)
            for block in blocks:
                h = block(h, film)
            h = upsample(h)
        return rearrange(self.output(h), "b a t -> b t a")

    def _check_horizon(self, horizon: int) -> None:
        if horizon < 1 or horizon % self.downsampling:
            raise ValueError(
                f"horizon must be a multiple of {self.downsampling} (the U-Net halves it "
                f"{self.downsampling.bit_length() - 1} times), got {horizon}"
            )
