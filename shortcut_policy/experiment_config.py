"""All values of a robot-learning run, validated; `configs/` holds them as YAML."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from shortcut_policy.config import Component
from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.data.array_source import ArraySource
from shortcut_policy.data.normalizer import Normalization
from shortcut_policy.data.symmetry import Symmetry
from shortcut_policy.training.config import TrainerConfig
from shortcut_policy.vision_config import VisionConfig


@dataclass(frozen=True)
class DataConfig:
    """Where the demonstrations lie and what is read of them.

    Args:
        path: of the data set.
        observations: name -> array of the data set, in the order in which they are joined.
        action: array of the data set.
        format: on disk: Diffusion Policy's zarr stores or robomimic's HDF5 files.
        action_codec: what the actions mean, and how the network sees them.
        filter_key: robomimic's list of the demonstrations that are read, such as "train"; null: all.
        valid_filter_key: the list of those that are held out, such as "valid"; null: drawn, see below.
        valid_fraction: share of the episodes held out, in [0, 1).
        split_seed: of the choice of these episodes, the same for all training seeds.
        pad_after: how many actions of a window may lie beyond the episode's end; null: all but one.
        symmetries: of the task; what each makes of the demonstrations is trained on as well, and not held out. Two
            mirrors are three symmetries: their product is one, too.
        image_workers: processes that read the images from the file as they are needed (robomimic's format only), 0 for
            reading in the training's own; null: all images are held on the device.
    """

    path: str
    observations: Mapping[str, ArraySource]
    action: ArraySource
    format: Literal["zarr", "robomimic"] = "zarr"
    action_codec: ActionCodec = field(default_factory=ActionCodec)
    filter_key: str | None = None
    valid_filter_key: str | None = None
    valid_fraction: float = 0.02
    split_seed: int = 0
    pad_after: int | None = None
    symmetries: tuple[Symmetry, ...] = ()
    image_workers: int | None = None

    def __post_init__(self) -> None:
        if self.image_workers is not None and self.format != "robomimic":
            raise ValueError(f"data.image_workers={self.image_workers} needs data.format=robomimic: say null")
        if (self.image_workers or 0) < 0:
            raise ValueError(f"data.image_workers must not be negative, got {self.image_workers}")
        if self.format == "zarr" and (self.filter_key or self.valid_filter_key):
            raise ValueError(f"data.filter_key={self.filter_key or self.valid_filter_key} needs data.format=robomimic")
        if self.valid_filter_key and not self.filter_key:
            raise ValueError(
                f"data.valid_filter_key={self.valid_filter_key} would hold out demonstrations that are trained on: "
                "say data.filter_key too, such as train"
            )


@dataclass(frozen=True)
class EnvironmentConfig:
    """The environment in which the policy is evaluated.

    Args:
        name: as `envs.make` knows it.
        options: of the environment.
        workers: processes that share the environments of an evaluation; 0 for none beside the command's own.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    workers: int = 0

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ValueError(f"environment.workers must not be negative, got {self.workers}")


@dataclass(frozen=True)
class WindowConfig:
    """The policy's window and normalization, and how it samples; see `PolicyConfig`."""

    observation_steps: int = 2
    horizon: int = 16
    action_steps: int = 8
    action_offset: int = 0
    normalization: Normalization = "limits"
    mask_padding: bool = False
    prefix_steps: int = 0
    noise_scale: float | None = None


@dataclass(frozen=True)
class ValidationConfig:
    """What is measured on held-out windows, and how often.

    Args:
        every: in steps.
        windows: how many, evenly spread over the held-out episodes.
        num_steps: step counts for which the action error is measured.
    """

    every: int = 1000
    windows: int = 256
    num_steps: tuple[int, ...] = (1, 16)

    def __post_init__(self) -> None:
        for name in ("every", "windows"):
            if getattr(self, name) < 1:
                raise ValueError(f"validation.{name} must be positive, got {getattr(self, name)}")
        if min(self.num_steps, default=1) < 1:
            raise ValueError(f"validation.num_steps must be positive, got {list(self.num_steps)}")


@dataclass(frozen=True)
class RolloutConfig:
    """Rollouts during the training.

    Args:
        every: in steps; 0 for never.
        episodes: in each evaluation.
        first_seed: of the episodes; not those of the final evaluation, so that nothing is chosen on them.
        num_steps: step counts that are rolled out.
    """

    every: int = 0
    episodes: int = 10
    first_seed: int = 200_000
    num_steps: tuple[int, ...] = (1,)

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"rollout.every must not be negative, got {self.every}")
        if self.episodes < 1:
            raise ValueError(f"rollout.episodes must be positive, got {self.episodes}")
        if min(self.num_steps, default=1) < 1:
            raise ValueError(f"rollout.num_steps must be positive, got {list(self.num_steps)}")


@dataclass(frozen=True)
class ExperimentConfig:
    """A whole run.

    Args:
        task: its name.
        data, policy, network, objective, trainer: the parts.
        vision: how images are seen, where the data have some.
        environment: for rollouts; null for data without one.
        init_from: checkpoint whose network the training begins with, whatever its objective; null: random weights.
        teacher: checkpoint of a flow that the objective distils instead of training one; null: none.
        output: folder of the run; null: outputs/{task}_{objective}_{seed}.
        device: "auto", "cpu", "cuda", ...
    """

    task: str
    data: DataConfig
    network: Component
    objective: Component
    trainer: TrainerConfig
    policy: WindowConfig = field(default_factory=WindowConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    environment: EnvironmentConfig | None = None
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    init_from: str | None = None
    teacher: str | None = None
    output: str | None = None
    device: str = "auto"

    @property
    def folder(self) -> str:
        """Where the run writes."""
        return self.output or f"outputs/{self.task}_{self.objective.name}_{self.trainer.seed}"
