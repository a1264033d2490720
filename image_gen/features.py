"""Networks whose features stand for images in a Fréchet distance; those of different features cannot be compared."""

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional

from image_gen.weights_file import read_weights


class Features(Protocol):
    """Maps images (B, C, H, W) uint8 to features (B, D).

    Attributes:
        title: of network and weights, for results.
        dim: D.
    """

    title: str
    dim: int

    def __call__(self, images: Tensor) -> Tensor:
        """See above."""


@dataclass(frozen=True)
class FeaturesConfig:
    """Which features.

    Attributes:
        name: "inception" (2048 of Inception-v3, which everybody means by FID), "mnist_lenet" (84), "cifar10_resnet20"
            or "cifar10_resnet56" (64).
        path: of the weights; None downloads Inception's.
    """

    name: str
    path: str | None = None

    def __post_init__(self) -> None:
        if self.name not in FEATURES:
            raise ValueError(f"features.name must be one of {', '.join(FEATURES)}, got {self.name!r}")
        if self.path is None and self.name != "inception":
            raise ValueError(f"features.path is missing: say where the weights of {self.name} are")


def load_features(config: FeaturesConfig, device: torch.device | str) -> Features:
    """Load the network.

    Raises:
        FileNotFoundError, ImportError, ConnectionError: weights, or what reads them, are missing.
        ValueError: the weights do not fit.
    """
    return FEATURES[config.name](config, torch.device(device))


class InceptionFeatures:
    """Inception-v3 with the weights and the resizing of the original FID, by the package torch-fidelity.

    Args:
        config: the path of the weights, or None to download them.
        device: where it computes.
    """

    title, dim = "Inception-v3, 2048 features", 2048

    def __init__(self, config: FeaturesConfig, device: torch.device) -> None:
        try:
            from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
        except ImportError as error:
            raise ImportError("features=inception needs the extra 'image': pip install -e '.[image]'") from error
        if config.path and not Path(config.path).exists():
            raise FileNotFoundError(f"features.path={config.path} does not exist")
        try:
            self._network = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048"], feature_extractor_weights_path=config.path
            )
        except OSError as error:  # urllib's errors are among these
            raise ConnectionError(
                f"Inception's weights cannot be downloaded ({error}): say features.path=... where they are, or take "
                "features=mnist_lenet or features=cifar10_resnet56"
            ) from error
        except (RuntimeError, pickle.UnpicklingError, EOFError, IndexError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            remedy = f"features.path={config.path} ({reason}): give another file"
            if not config.path:
                remedy = f"what was downloaded to {torch.hub.get_dir()}/checkpoints ({reason}): remove it there"
            raise ValueError(f"Inception's weights are not in {remedy}") from error
        self._network = self._network.to(device).eval()
        self._device = device

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Grey images are given three equal channels."""
        features: Tensor = self._network(images.expand(-1, 3, -1, -1).to(self._device))[0]
        return features


class LeNetFeatures(nn.Module):
    """The last hidden layer of LeNet-5, trained on MNIST: grey images, enlarged to 32 x 32.

    Args:
        config: the path of a state dict with convnet.c1, c3, c5 and fc.f6.
        device: where it computes.
    """

    title, dim = "LeNet-5 trained on MNIST, 84 features", 84

    def __init__(self, config: FeaturesConfig, device: torch.device) -> None:
        super().__init__()
        self.convnet = nn.ModuleDict({"c1": nn.Conv2d(1, 6, 5), "c3": nn.Conv2d(6, 16, 5), "c5": nn.Conv2d(16, 120, 5)})
        self.fc = nn.ModuleDict({"f6": nn.Linear(120, 84), "f7": nn.Linear(84, 10)})
        _load(self, _weights(config), config)
        self.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """See `Features`."""
        x = functional.interpolate(
            _grey(images).to(self.fc["f6"].weight.device).float() / 255.0, (32, 32), mode="bilinear"
        )
        x = functional.max_pool2d(self.convnet["c1"](x).tanh(), 2)
        x = functional.max_pool2d(self.convnet["c3"](x).tanh(), 2)
        return self.fc["f6"](self.convnet["c5"](x).tanh().flatten(1)).tanh()


class ResidualBlock(nn.Module):
    """Two convolutions beside the identity; where channels grow, the identity is thinned out and padded with zeros."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.more = stride, outputs - inputs

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C', H / stride, W / stride)."""
        h = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        x = functional.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more // 2, self.more // 2))
        return (h + x).relu()


class ResNetFeatures(nn.Module):
    """The pooled features of a ResNet trained on CIFAR-10 (He et al., arXiv 1512.03385, section 4.2).

    Args:
        config: the path of its state dict; the name says how deep it is.
        device: where it computes.
    """

    dim = 64

    def __init__(self, config: FeaturesConfig, device: torch.device) -> None:
        super().__init__()
        depth = int(config.name.removeprefix("cifar10_resnet"))
        self.title = f"ResNet-{depth} trained on CIFAR-10, 64 features"
        self.conv1, self.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
        channels = 16
        for number, outputs in enumerate((16, 32, 64), start=1):
            blocks = []
            for block in range((depth - 2) // 6):
                blocks.append(ResidualBlock(channels, outputs, 2 if number > 1 and block == 0 else 1))
                channels = outputs
            setattr(self, f"layer{number}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)
        _load(self, _weights(config), config)
        mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("deviation", deviation, persistent=False)
        self.to(device).eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """See `Features`; images of another size are resized to 32 x 32."""
        x = images.expand(-1, 3, -1, -1).to(self.linear.weight.device).float() / 255.0
        if x.shape[-1] != 32:
            x = functional.interpolate(x, (32, 32), mode="bilinear", antialias=True)
        x = self.bn1(self.conv1((x - self.mean) / self.deviation)).relu()
        return self.layer3(self.layer2(self.layer1(x))).mean((2, 3))


FEATURES: Mapping[str, Callable[[FeaturesConfig, torch.device], Any]] = {
    "inception": InceptionFeatures,
    "mnist_lenet": LeNetFeatures,
    "cifar10_resnet20": ResNetFeatures,
    "cifar10_resnet56": ResNetFeatures,
}


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] != 1:
        raise ValueError(f"features=mnist_lenet takes grey images, got {images.shape[1]} channels")
    return images


def _weights(config: FeaturesConfig) -> Mapping[str, Tensor]:
    weights = read_weights(Path(str(config.path)), "features.path")
    weights = weights.get("state_dict", weights)
    return {name.removeprefix("module."): value for name, value in weights.items()}


def _load(module: nn.Module, weights: Mapping[str, Tensor], config: FeaturesConfig) -> None:
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise ValueError(f"{config.path} does not hold the weights of {config.name}: {error}") from error
