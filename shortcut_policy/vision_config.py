"""How a policy sees its images: the values that stand in a checkpoint's `config.json`."""

from dataclasses import dataclass, field

from shortcut_policy.config import Component


@dataclass(frozen=True)
class VisionConfig:
    """Encoders of images, and how images are varied in training.

    Args:
        encoder: what turns an image into a vector.
        shared: whether all cameras have the same encoder, weights and all; else each has its own.
        crop: side of the part that is seen, as a share of the image's side, in (0, 1]; anywhere in training, the centre
            otherwise.
        brightness, contrast, saturation: in training, each is multiplied by a number within 1 - x ... 1 + x, in [0, 1).
            Gray images know no saturation.
        cache_features: whether a frozen model of timm looks at every image once, before the training, which then works
            on its features. Crops are the centre's, and colours as they are.

    Raises:
        ValueError: a number is out of its range, or features that change are to be cached.
    """

    encoder: Component = field(default_factory=lambda: Component("small_cnn"))
    shared: bool = False
    crop: float = 0.9
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    cache_features: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.crop <= 1.0:
            raise ValueError(f"vision.crop must lie in (0, 1], got {self.crop}")
        for name in ("brightness", "contrast", "saturation"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"vision.{name} must lie in [0, 1), got {getattr(self, name)}")
            if self.cache_features and getattr(self, name):
                raise ValueError(f"vision.cache_features=true needs images as they are: say vision.{name}=0")
        if self.cache_features and not self.encoder.options.get("frozen"):
            raise ValueError(
                f"vision.cache_features=true needs an encoder that does not learn, and {self.encoder.name!r} does: say "
                "vision=timm and vision.encoder.options.frozen=true"
            )

    def cropped(self, side: int) -> int:
        """Pixels that are seen of a side."""
        return max(1, round(self.crop * side))
