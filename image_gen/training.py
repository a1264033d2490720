"""An image-generation run put together: data, generator, trainer."""

from dataclasses import dataclass
from typing import Any

from image_gen.generator import Generator, GeneratorConfig
from image_gen.image_data import ImageBatches, ImageSet, load_digits
from shortcut_policy.config import Component, to_mapping
from shortcut_policy.training.config import TrainerConfig
from shortcut_policy.training.distributed import join_processes
from shortcut_policy.training.loop import Trainer
from shortcut_policy.training.state import Progress

DATASETS = {"digits": load_digits}


@dataclass(frozen=True)
class ImageExperimentConfig:
    """A whole run.

    Attributes:
        dataset, network, objective, trainer: the parts.
        output: folder of the run; null: outputs/{dataset}_{objective}_{seed}.
        device: "auto", "cpu", "cuda", ...
    """

    dataset: Component
    network: Component
    objective: Component
    trainer: TrainerConfig
    output: str | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.dataset.name not in DATASETS:
            raise ValueError(f"unknown dataset {self.dataset.name!r}: known are {', '.join(DATASETS)}")

    @property
    def folder(self) -> str:
        """Where the run writes."""
        return self.output or f"outputs/{self.dataset.name}_{self.objective.name}_{self.trainer.seed}"


def load_images(dataset: Component) -> ImageSet:
    """The images of a data set by name.

    Raises:
        ImportError: what reads them is missing.
    """
    return DATASETS[dataset.name](**dataset.options)


def train(config: ImageExperimentConfig, provenance: dict[str, Any]) -> Progress:
    """Train the generator of `config`, or go on where its run was interrupted.

    Args:
        config: the run.
        provenance: JSON values about the command, kept in the checkpoint.

    Raises:
        ValueError: values that do not fit.
        FileExistsError: the output folder holds something else.
        TrainingInterrupted, TrainingDiverged: see `Trainer.run`.
    """
    data = load_images(config.dataset)
    with join_processes(config.device) as processes:
        made = GeneratorConfig(
            channels=data.images.shape[1],
            size=data.images.shape[2],
            num_classes=data.num_classes,
            network=config.network,
            objective=config.objective,
            metadata={"dataset": to_mapping(config.dataset), "training": provenance},
        )
        generator = Generator.create(made, config.trainer.seed).to(processes.device)
        batches = ImageBatches(data, config.trainer.batch_size, config.trainer.seed, processes.device)
        return Trainer(
            generator.network,
            generator.objective,
            batches.batch,
            config.trainer,
            output=config.folder,
            save_model=generator.save_pretrained,
            processes=processes,
            run_config=to_mapping(config),
        ).run()
