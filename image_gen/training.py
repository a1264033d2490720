"""An image-generation run put together: data, generator, trainer."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image_gen.autoencoders import AutoencoderConfig, load_autoencoder
from image_gen.generator import Generator, GeneratorConfig
from image_gen.image_data import ImageBatches, ImageSet, LatentSet, left_out, load_images, load_latents
from image_gen.image_sources import DatasetConfig
from image_gen.trained_generators import read_begun, read_teacher
from shortcut_policy.config import Component, to_mapping
from shortcut_policy.provenance import describe_hardware
from shortcut_policy.training.config import TrainerConfig
from shortcut_policy.training.distributed import Processes, join_processes
from shortcut_policy.training.loop import Trainer
from shortcut_policy.training.state import Progress


@dataclass(frozen=True)
class ImageExperimentConfig:
    """A whole run.

    Attributes:
        dataset, network, objective, trainer: the parts.
        autoencoder: the network makes latents of it; None for images.
        latents: folder where the latents of the data set are kept.
        init_from: checkpoint whose network the training begins with, whatever its objective; null: random weights.
        teacher: checkpoint of a flow that the objective distils instead of training one; null: none.
        output: folder of the run; null: outputs/{dataset}_{objective}_{seed}.
        device: "auto", "cpu", "cuda", ...
    """

    dataset: DatasetConfig
    network: Component
    objective: Component
    trainer: TrainerConfig
    autoencoder: AutoencoderConfig | None = None
    latents: str = "outputs/latents"
    init_from: str | None = None
    teacher: str | None = None
    output: str | None = None
    device: str = "auto"

    @property
    def folder(self) -> str:
        """Where the run writes."""
        return self.output or f"outputs/{self.dataset.name}_{self.objective.name}_{self.trainer.seed}"


def load_data(config: ImageExperimentConfig, processes: Processes) -> ImageSet | LatentSet:
    """The images of a run, or their latents, which one process computes where they are missing while others wait.

    Raises:
        FileNotFoundError, ImportError: they, or what reads them, are missing.
        ValueError: they do not fit together.
    """
    shown = processes.is_main and config.trainer.progress
    if config.autoencoder is None:
        return load_images(config.dataset, progress=shown)
    # whoever has the cache's lock computes; no barrier, which would give up where the others wait for hours
    autoencoder = load_autoencoder(config.autoencoder, processes.device)
    return load_latents(config.dataset, autoencoder, Path(config.latents), progress=shown)


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
    with join_processes(config.device) as processes:
        data = load_data(config, processes)
        if data.skipped and processes.is_main:
            print(left_out(data))
        channels, size, _ = data.shape
        made = GeneratorConfig(
            channels=channels,
            size=size,
            num_classes=data.num_classes,
            network=config.network,
            objective=config.objective,
            metadata={
                "dataset": to_mapping(config.dataset),
                "skipped": data.skipped,
                "training": {
                    **provenance,
                    "hardware": describe_hardware(processes.device),
                    "trainer": to_mapping(config.trainer),
                },
            },
            autoencoder=config.autoencoder,
        )
        generator = Generator.create(made, config.trainer.seed).to(processes.device)
        if config.init_from is not None:
            generator.network.load_state_dict(read_begun(config.init_from, generator).state_dict())
        batches = ImageBatches(
            data, config.trainer.batch_size, config.trainer.seed, processes.device, flip=config.dataset.flip
        )
        return Trainer(
            generator.network,
            generator.objective,
            batches.batch,
            config.trainer,
            output=config.folder,
            save_model=generator.save_pretrained,
            teacher=None if config.teacher is None else read_teacher(config.teacher, generator),
            processes=processes,
            run_config=to_mapping(config),
        ).run()
