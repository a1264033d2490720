"""Networks that turn an image into a vector, by name.

All map (N, C, h, w) in [0, 1] to (N, F), and have the attribute `output_dim` = F.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from shortcut_policy.nn.spatial_softmax import SpatialSoftmax


class SmallCnn(nn.Module):
    """Strided convolutions with GroupNorm, then a spatial softmax: for CPUs.

    Args:
        image_shape: (C, h, w).
        widths: channels of the convolutions; all but the last of them halve the side.
        keypoints: of the spatial softmax.
        feature_dim: F.
        groups: of GroupNorm; divides every width.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        widths: Sequence[int] = (16, 32, 64, 64),
        keypoints: int = 32,
        feature_dim: int = 64,
        groups: int = 8,
    ) -> None:
        super().__init__()
        if groups < 1:
            raise ValueError(f"groups must be positive, got {groups}")
        if not widths or any(width < 1 or width % groups for width in widths):
            raise ValueError(f"every width must be a positive multiple of groups={groups}, got {list(widths)}")
        layers: list[nn.Module] = []
        for number, (before, width) in enumerate(zip([image_shape[0], *widths[:-1]], widths, strict=True)):
            stride = 1 if number == len(widths) - 1 else 2
            layers += [nn.Conv2d(before, width, 3, stride, padding=1), nn.GroupNorm(groups, width), nn.Mish()]
        pool = SpatialSoftmax(widths[-1], keypoints)
        self.layers = nn.Sequential(*layers, pool, nn.Linear(pool.output_dim, feature_dim))
        self.output_dim = feature_dim

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, h, w) in [0, 1] -> (N, F)."""
        return self.layers(2.0 * images - 1.0)


class ResNet18(nn.Module):
    """Diffusion Policy's: torchvision's ResNet-18 from scratch, GroupNorm for BatchNorm, and a spatial softmax.

    GroupNorm, because BatchNorm's statistics disagree with the EMA of the weights (Chi et al., arXiv 2303.04137).

    Args:
        image_shape: (C, h, w).
        keypoints: of the spatial softmax.
        feature_dim: F.

    Raises:
        ImportError: torchvision is missing.
    """

    def __init__(self, image_shape: Sequence[int], keypoints: int = 32, feature_dim: int = 64) -> None:
        super().__init__()
        try:
            from torchvision.models import resnet18
        except ImportError as error:
            raise ImportError(f"resnet18 is torchvision's ({error}): pip install -e '.[vision]'") from error
        resnet = resnet18(weights=None, norm_layer=lambda channels: nn.GroupNorm(channels // 16, channels))
        if image_shape[0] != 3:
            resnet.conv1 = nn.Conv2d(image_shape[0], 64, 7, stride=2, padding=3, bias=False)
        children = list(resnet.children())[:-2]  # without average pooling and classifier
        pool = SpatialSoftmax(512, keypoints)
        self.layers = nn.Sequential(*children, pool, nn.Linear(pool.output_dim, feature_dim))
        self.output_dim = feature_dim

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, h, w) in [0, 1] -> (N, F)."""
        return self.layers(2.0 * images - 1.0)


class TimmEncoder(nn.Module):
    """Any model of timm, by its name, without its classifier.

    Args:
        image_shape: (C, h, w).
        model: timm's name of it, such as "vit_small_patch14_dinov2".
        pretrained: whether it begins with timm's weights, which are downloaded once; a checkpoint of ours holds them.
        frozen: whether it stays as it is; then only a linear map of its features is trained.
        image_size: side to which images are scaled first, and for which a model is built that has a size of its own,
            such as a ViT; null: as they come.
        feature_dim: F.

    Attributes:
        num_features: M, of the model itself.

    Raises:
        ImportError: timm is missing.
        ValueError: timm knows no such model, it takes no such images, or one that is to be trained has BatchNorm.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        image_shape: Sequence[int],
        model: str = "resnet18",
        pretrained: bool = True,
        frozen: bool = False,
        image_size: int | None = None,
        feature_dim: int = 64,
    ) -> None:
        super().__init__()
        try:
            import timm
        except ImportError as error:
            raise ImportError(f"image encoders of timm need timm ({error}): pip install -e '.[timm]'") from error
        if not timm.is_model(model):
            raise ValueError(f"timm has no model {model!r}: timm.list_models() names them")
        options = {"pretrained": pretrained, "in_chans": image_shape[0], "num_classes": 0}
        try:
            self.model = timm.create_model(model, **options, **({"img_size": image_size} if image_size else {}))
        except TypeError:  # convolutional models take images of any size
            self.model = timm.create_model(model, **options)
        configuration = timm.data.resolve_model_data_config(self.model)
        for name in ("mean", "std"):
            values = torch.tensor(configuration[name])
            if len(values) != image_shape[0]:  # no colours: the mean one's
                values = values.mean().expand(image_shape[0])
            self.register_buffer(name, values.reshape(1, -1, 1, 1).clone(), persistent=False)
        self.frozen = frozen
        if frozen:
            self.model.requires_grad_(False).eval()
        elif any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in self.model.modules()):
            raise ValueError(
                f"{model!r} has BatchNorm, whose statistics disagree with the EMA of the weights: say frozen: true, or "
                "take a model with GroupNorm or LayerNorm"
            )
        self.image_size = image_size
        self.num_features = self._count_features(image_shape)
        self.output = nn.Linear(self.num_features, feature_dim)
        self.output_dim = feature_dim

    def _count_features(self, image_shape: Sequence[int]) -> int:
        """M; models of timm say it in different ways, or not at all."""
        is_training = self.model.training
        try:
            with torch.no_grad():
                self.model.eval()
                return int(self.features(torch.zeros(1, *image_shape)).shape[1])
        except (AssertionError, RuntimeError) as error:
            raise ValueError(
                f"the model of timm does not take images {tuple(image_shape)} ({error}): say "
                "vision.encoder.options.image_size"
            ) from error
        finally:
            self.model.train(is_training)

    def train(self, mode: bool = True) -> "TimmEncoder":
        """As `nn.Module.train`; a frozen model does not follow: its statistics stay as they are."""
        super().train(mode)
        if self.frozen:
            self.model.eval()
        return self

    def features(self, images: Tensor) -> Tensor:
        """What the model makes of images: (N, C, h, w) in [0, 1] -> (N, M)."""
        if self.image_size is not None:
            size = (self.image_size, self.image_size)
            images = nn.functional.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.model((images - self.mean) / self.std)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, h, w) in [0, 1], or the model's features of them (N, M) -> (N, F)."""
        return self.output(images if images.ndim == 2 else self.features(images))


IMAGE_ENCODERS: Mapping[str, type[nn.Module]] = {"small_cnn": SmallCnn, "resnet18": ResNet18, "timm": TimmEncoder}


def make_image_encoder(name: str, image_shape: Sequence[int], options: Mapping[str, Any]) -> nn.Module:
    """An image encoder by name.

    Raises:
        ValueError: unknown name or option, or a size that does not fit.
        ImportError: its library is missing.
    """
    if name not in IMAGE_ENCODERS:
        raise ValueError(f"unknown vision.encoder {name!r}: known are {', '.join(IMAGE_ENCODERS)}")
    try:
        return IMAGE_ENCODERS[name](image_shape, **options)
    except TypeError as error:
        raise ValueError(f"vision.encoder {name!r}: {error}") from error
