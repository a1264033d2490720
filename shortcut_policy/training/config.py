"""The values of a training run."""

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class EmaConfig:
    """An exponential moving average of the weights; its decay is min(decay, 1 - (1 + updates)^-warmup_power).

    Args:
        decay: the largest decay, in [0, 1).
        warmup_power: how fast the decay rises to it (3/4: Diffusion Policy's); 0 for a constant decay.
    """

    decay: float = 0.999
    warmup_power: float = 0.75

    def __post_init__(self) -> None:
        if not 0.0 <= self.decay < 1.0:
            raise ValueError(f"EMA decay must lie in [0, 1), got {self.decay}")
        if self.warmup_power < 0.0:
            raise ValueError(f"EMA warmup_power must not be negative, got {self.warmup_power}")


@dataclass(frozen=True)
class TrainerConfig:
    """How to train.

    Args:
        steps: updates in all.
        batch_size: rows of the global batch, over all processes and micro-batches.
        accumulation: micro-batches per process whose gradients are added up before an update.
        learning_rate: the highest; in each phase it rises linearly over `warmup_steps`, or a quarter of a shorter
            phase, and falls by a cosine to `final_learning_rate`.
        betas, weight_decay: of AdamW; biases, norms and embeddings are not decayed.
        gradient_clip: bound on the gradient's norm; null for none.
        ema: of the weights for evaluation.
        target_ema: of the weights for bootstrap targets.
        precision: "fp32", "tf32" (matrix products on a GPU) or "bf16" (autocast).
        compile: whether the network is compiled (`torch.compile`).
        sharding: "fsdp": weights and moments are divided among the processes; null: each has them all (DDP).
        seed: of the order of the data and of all draws.
        log_every, checkpoint_every: in steps. Checkpoints are what a killed run resumes from.
        keep_checkpoints: how many of the last checkpoints stay on disk, "best" aside.
        best_metric: what "best" means: the name of a metric that a hook returns.
        best_mode: whether the best is the least or the greatest.
        overfit_one_batch: for debugging: the first batch again and again.
        logger: where metrics go besides `metrics.jsonl`.
        progress: whether a progress bar is shown.

    Raises:
        ValueError: a value out of range; the message quotes it.
    """

    steps: int
    batch_size: int = 64
    accumulation: int = 1
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.0
    warmup_steps: int = 500
    betas: tuple[float, float] = (0.95, 0.999)
    weight_decay: float = 1e-6
    gradient_clip: float | None = 1.0
    ema: EmaConfig = field(default_factory=EmaConfig)
    target_ema: EmaConfig = field(default_factory=EmaConfig)
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    compile: bool = False
    sharding: Literal["fsdp"] | None = None
    seed: int = 0
    log_every: int = 50
    checkpoint_every: int = 1000
    keep_checkpoints: int = 1
    best_metric: str | None = None
    best_mode: Literal["min", "max"] = "min"
    overfit_one_batch: bool = False
    logger: Literal["none", "wandb", "tensorboard"] = "none"
    progress: bool = True

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "accumulation", "log_every", "checkpoint_every", "keep_checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"trainer.{name} must be positive, got {getattr(self, name)}")
        for name in ("learning_rate", "final_learning_rate", "weight_decay", "warmup_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"trainer.{name} must not be negative, got {getattr(self, name)}")
        if self.gradient_clip is not None and self.gradient_clip <= 0:
            raise ValueError(f"trainer.gradient_clip must be positive or null, got {self.gradient_clip}")
        if self.sharding not in (None, "fsdp"):
            raise ValueError(f"trainer.sharding must be fsdp or null, got {self.sharding!r}")
        if self.batch_size % self.accumulation:
            raise ValueError(
                f"trainer.batch_size={self.batch_size} is not a multiple of trainer.accumulation={self.accumulation}"
            )
