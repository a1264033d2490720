"""The image generator: network and objective in one module, what a checkpoint holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from image_gen.autoencoders import Autoencoder, AutoencoderConfig, load_autoencoder
from image_gen.dit import IMAGE_NETWORKS
from image_gen.pixels import to_uint8
from shortcut_policy.config import Component, from_mapping, to_mapping
from shortcut_policy.core.network import BoundNetwork
from shortcut_policy.core.objectives import objective_class
from shortcut_policy.core.objectives.base import Objective
from shortcut_policy.pretrained import read_pretrained, write_pretrained


@dataclass(frozen=True)
class GeneratorConfig:
    """What a generator is made of: the values in a checkpoint's `config.json`.

    Attributes:
        channels, size: of the images or latents that the network makes, (C, size, size).
        num_classes: K; the null label is K.
        network, objective: by name, with options.
        metadata: JSON values that travel with the checkpoint, such as the data set.
        autoencoder: makes images of latents; None where the network makes images.
    """

    channels: int
    size: int
    num_classes: int
    network: Component
    objective: Component
    metadata: Mapping[str, Any] = field(default_factory=dict)
    autoencoder: AutoencoderConfig | None = None


class Generator(nn.Module):
    """Maps noise and labels to images.

    Args:
        config: what it is made of.

    Raises:
        ValueError: unknown network or objective, or an option that does not fit.
    """

    def __init__(self, config: GeneratorConfig) -> None:
        super().__init__()
        self.config = config
        self._autoencoder: Autoencoder | None = None
        if config.network.name not in IMAGE_NETWORKS:
            raise ValueError(f"unknown network {config.network.name!r}: known are {', '.join(IMAGE_NETWORKS)}")
        kind, options = IMAGE_NETWORKS[config.network.name], dict(config.network.options)
        try:
            self.network = kind(config.channels, config.size, config.num_classes, **options)
        except TypeError as error:
            raise ValueError(f"network {config.network.name}: {error}") from error
        objective = objective_class(config.objective.name)
        self.objective: Objective = from_mapping(objective, config.objective.options, "objective.")
        if options.get("compatibility") == "official" and getattr(self.objective, "flow_step", "zero") != "smallest":
            raise ValueError(
                "network.compatibility=official has no embedding of d = 0, which this objective tells it: say "
                "objective=shortcut_paper, or objective.flow_step=smallest of a shortcut"
            )

    @classmethod
    def create(cls, config: GeneratorConfig, seed: int) -> Self:
        """A new generator whose initial weights are a function of the seed."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPUs as well
            return cls(config)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.network.parameters()).device

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of what the network makes: images or latents."""
        return self.config.channels, self.config.size, self.config.size

    def sample(
        self,
        labels: Tensor,
        num_steps: int,
        *,
        guidance: float = 1.0,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Images (B, C, H, W) uint8, on the CPU; decoded from latents where the generator makes these.

        The arguments are those of `generate`.

        Raises:
            FileNotFoundError, ImportError: the autoencoder's weights, or what reads them, are missing.
            ValueError: as `generate`; or these are latents, and there is no autoencoder.
        """
        made = self.generate(labels, num_steps, guidance=guidance, noise=noise, generator=generator)
        return self._images(made).cpu()

    def check_guidance(self, guidance: float) -> None:
        """Refuse guidance away from a null label that was not trained.

        Raises:
            ValueError: it was not.
        """
        if guidance != 1.0 and not getattr(self.objective, "condition_dropout", 0.0):
            raise ValueError(
                f"guidance={guidance} needs a generator that was also trained without its labels, with "
                "objective.condition_dropout=0.1: say guidance=1"
            )

    @torch.no_grad()
    def generate(
        self,
        labels: Tensor,
        num_steps: int,
        *,
        guidance: float = 1.0,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """What the network makes, (B, C, H, W) float on its device: images in [-1, 1], or latents.

        Args:
            labels: (B,) int64 in 0 ... K; K is the null label.
            num_steps: sampling steps.
            guidance: scale of classifier-free guidance; 1 is none. It needs a training with condition_dropout.
            noise: (B, C, H, W) standard normal; drawn from `generator` (default: torch's) where it is not given.
            generator: on the generator's device; noise on the way is drawn from it, too.

        Raises:
            ValueError: a label or the noise's shape does not fit; guidance without a trained null condition.
        """
        labels = torch.as_tensor(labels, dtype=torch.int64, device=self.device)
        if labels.ndim != 1 or (
            len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) <= self.config.num_classes
        ):
            raise ValueError(f"labels must be (B,) in 0 ... {self.config.num_classes}, got {labels.tolist()}")
        shape = (len(labels), *self.noise_shape)
        if noise is None:
            noise = torch.randn(shape, generator=generator, device=self.device)
        elif noise.shape != shape:
            raise ValueError(f"noise must have shape {shape}, got {tuple(noise.shape)}")
        self.check_guidance(guidance)
        bound = BoundNetwork(self.network, labels, torch.full_like(labels, self.config.num_classes))
        sampler = self.objective.sampler(num_steps)
        again = torch.randn(sampler.step_noises, *shape, generator=generator, device=self.device)
        predict = bound if guidance == 1.0 else bound.guided(guidance)
        return sampler(predict, noise.to(self.device), again)

    def _images(self, made: Tensor) -> Tensor:
        if self.config.autoencoder is None:
            if self.config.channels not in (1, 3):
                raise ValueError(
                    f"{self.config.channels} channels are no image: the generator makes latents, and its config.json "
                    "names no autoencoder"
                )
            return to_uint8(made)
        if self._autoencoder is None:
            self._autoencoder = load_autoencoder(self.config.autoencoder, self.device)
        return self._autoencoder.decode(made)

    def save_pretrained(self, folder: str | Path, network: nn.Module | None = None) -> None:
        """Write the checkpoint folder, with the weights of another network of the same shape if one is given."""
        write_pretrained(Path(folder), "generator", to_mapping(self.config), (network or self.network).state_dict())

    @classmethod
    def from_pretrained(cls, folder: str | Path, device: torch.device | str = "cpu") -> Self:
        """Load a checkpoint folder, for inference.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: another version, or a damaged file.
        """
        loaded = read_pretrained(folder, "generator")
        made = cls.create(from_mapping(GeneratorConfig, loaded.config, "config."), 0)
        try:
            made.network.load_state_dict(dict(loaded.tensors))
        except RuntimeError as error:
            raise ValueError(f"the weights in {folder} do not fit its config.json: {error}") from error
        return made.to(device).eval().requires_grad_(False)
