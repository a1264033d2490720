"""Autoencoders between images and latents, all with the same two methods.

Latents are small images with more channels, scaled to a standard deviation of about 1.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from image_gen.pixels import to_network, to_uint8
from image_gen.weights_file import read_weights


class Autoencoder(Protocol):
    """What encodes and decodes.

    Attributes:
        channels: of the latents.
        factor: how many times smaller they are than the images.
        scale: factor on what the encoder makes.
        module: with all weights.
    """

    channels: int
    factor: int
    scale: float
    module: nn.Module

    def encode(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) uint8 -> latents (B, channels, H / factor, W / factor) float32."""

    def decode(self, latents: Tensor) -> Tensor:
        """The inverse, to uint8."""


@dataclass(frozen=True)
class AutoencoderConfig:
    """Which autoencoder.

    Attributes:
        name: "kl" (Stable Diffusion's, by the package diffusers) or "taef2" (a tiny one with 32 channels).
        path: for "kl" a folder or a name on the Hugging Face hub; for "taef2" the folder of taef2_encoder.pth and
            taef2_decoder.pth.
        scale: factor on what the encoder makes.
    """

    name: str
    path: str
    scale: float

    def __post_init__(self) -> None:
        if self.name not in AUTOENCODERS:
            raise ValueError(f"autoencoder.name must be one of {', '.join(AUTOENCODERS)}, got {self.name!r}")
        if not self.scale > 0:
            raise ValueError(f"autoencoder.scale must be positive, got {self.scale}")


def load_autoencoder(config: AutoencoderConfig, device: torch.device | str) -> Autoencoder:
    """Load the weights.

    Raises:
        FileNotFoundError, ImportError: they, or what reads them, are missing.
        ValueError: they do not fit.
    """
    return AUTOENCODERS[config.name](config, torch.device(device))


def weights_hash(module: nn.Module) -> str:
    """A name for the weights of a module: latents of other weights are other latents."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(name.encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


class KLAutoencoder:
    """Diffusers' AutoencoderKL; a latent is the mean of its distribution.

    Args:
        config: path and scale (0.18215 for sd-vae-ft-mse).
        device: where it computes.
    """

    def __init__(self, config: AutoencoderConfig, device: torch.device) -> None:
        try:
            from diffusers import AutoencoderKL
        except ImportError as error:
            raise ImportError("autoencoder=kl needs the package diffusers: pip install diffusers") from error
        try:
            self.module = AutoencoderKL.from_pretrained(config.path, use_safetensors=True)
        except OSError as error:
            raise FileNotFoundError(
                f"no AutoencoderKL at autoencoder.path={config.path} ({str(error).splitlines()[0]})"
            ) from error
        self.module = self.module.to(device).eval().requires_grad_(False)
        self.channels: int = self.module.config.latent_channels
        self.factor: int = 2 ** (len(self.module.config.block_out_channels) - 1)
        self._device, self.scale = device, config.scale

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """See `Autoencoder`."""
        mean: Tensor = self.module.encode(to_network(images.to(self._device))).latent_dist.mean
        return self.scale * mean

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """See `Autoencoder`."""
        return to_uint8(self.module.decode(latents.to(self._device) / self.scale).sample)


class TinyBlock(nn.Module):
    """Three convolutions beside the identity, in some places after a mixing of the channels in groups (TAESD).

    Args:
        channels: of input and output.
        mixed: whether the channels are mixed first.
    """

    def __init__(self, channels: int, mixed: bool = False) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        self.pool = None
        if mixed:
            self.pool = nn.Sequential(
                nn.Conv2d(channels, 4 * channels, 1, bias=False),
                nn.GroupNorm(4, 4 * channels),
                nn.ReLU(),
                nn.Conv2d(4 * channels, channels, 1, bias=False),
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the same shape."""
        x = x if self.pool is None else x + self.pool(x)
        return functional.relu(x + self.conv(x))


class SoftClamp(nn.Module):
    """3 tanh(x / 3): latents are kept in the range that the decoder knows."""

    def forward(self, x: Tensor) -> Tensor:
        """Element by element."""
        return 3.0 * torch.tanh(x / 3.0)


class TinyAutoencoder:
    """TAEF2, of the family of tiny autoencoders TAESD (github.com/madebyollin/taesd): images in [0, 1], 8 x smaller.

    Args:
        config: path and scale.
        device: where it computes.
    """

    channels, factor = 32, 8

    def __init__(self, config: AutoencoderConfig, device: torch.device) -> None:
        folder = Path(config.path)
        self.encoder, self.decoder = _tiny_encoder(self.channels), _tiny_decoder(self.channels)
        for module, name in ((self.encoder, "taef2_encoder.pth"), (self.decoder, "taef2_decoder.pth")):
            weights = read_weights(folder / name, "autoencoder.path")
            try:
                module.load_state_dict({key: value.float() for key, value in weights.items()})
            except (RuntimeError, AttributeError) as error:
                raise ValueError(f"{folder / name} does not hold the weights of TAEF2: {error}") from error
            module.to(device).eval().requires_grad_(False)
        self.module = nn.ModuleList([self.encoder, self.decoder])
        self._device, self.scale = device, config.scale

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """See `Autoencoder`."""
        latents: Tensor = self.encoder(images.to(self._device).float() / 255.0)
        return self.scale * latents

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """See `Autoencoder`."""
        images = self.decoder(latents.to(self._device) / self.scale)
        return (255.0 * images).round().clamp(0, 255).to(torch.uint8)


AUTOENCODERS: Mapping[str, Callable[[AutoencoderConfig, torch.device], "KLAutoencoder | TinyAutoencoder"]] = {
    "kl": KLAutoencoder,
    "taef2": TinyAutoencoder,
}


def _tiny_encoder(latents: int) -> nn.Sequential:
    def half() -> nn.Module:
        return nn.Conv2d(64, 64, 3, stride=2, padding=1, bias=False)

    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1),
        TinyBlock(64),
        *(half(), TinyBlock(64), TinyBlock(64), TinyBlock(64)),
        *(half(), TinyBlock(64), TinyBlock(64), TinyBlock(64)),
        *(half(), TinyBlock(64, True), TinyBlock(64, True), TinyBlock(64, True)),
        nn.Conv2d(64, latents, 3, padding=1),
    )


def _tiny_decoder(latents: int) -> nn.Sequential:
    def double() -> tuple[nn.Module, nn.Module]:
        return nn.Upsample(scale_factor=2), nn.Conv2d(64, 64, 3, padding=1, bias=False)

    return nn.Sequential(
        SoftClamp(),
        nn.Conv2d(latents, 64, 3, padding=1),
        nn.ReLU(),
        *(TinyBlock(64, True), TinyBlock(64, True), TinyBlock(64, True), *double()),
        *(TinyBlock(64), TinyBlock(64), TinyBlock(64), *double()),
        *(TinyBlock(64), TinyBlock(64), TinyBlock(64), *double()),
        TinyBlock(64),
        nn.Conv2d(64, 3, 3, padding=1),
    )
