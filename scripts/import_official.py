"""Turn a checkpoint of the paper's code into ours: `... checkpoint=FILE output=DIR`; `--help` lists all values.

Both sets of weights become checkpoint folders for scripts/sample_images.py, scripts/eval_image.py (with statistics=)
and scripts/train_image.py (init_from=).
"""

from pathlib import Path
from typing import Any

from hydra_command import command

from image_gen.autoencoders import AutoencoderConfig
from image_gen.generator import Generator, GeneratorConfig
from image_gen.official_checkpoint import read_official_checkpoint
from image_gen.official_weights import convert_weights, official_sizes, without_labels
from shortcut_policy.config import Component, from_mapping
from shortcut_policy.provenance import current_command


@command("import_official")
def main(values: dict[str, Any]) -> None:
    """Convert, or say what does not fit."""
    read = read_official_checkpoint(values["checkpoint"])
    sizes = official_sizes(read.params, values["heads"])
    coder = values["autoencoder"]
    objective = Component(values["objective"].pop("name"), values["objective"])
    config = GeneratorConfig(
        channels=sizes["channels"],
        size=values["size"],
        num_classes=sizes["num_classes"] if values["labels"] else 0,
        network=Component("dit", sizes["network"]),
        objective=objective,
        metadata={"official": {"step": read.step, "command": current_command()}},
        autoencoder=None if coder is None else from_mapping(AutoencoderConfig, coder, "autoencoder."),
    )
    for name, params in (("ema", read.params_ema), ("online", read.params)):
        generator = Generator.create(config, 0)
        weights = convert_weights(params)
        generator.network.load_state_dict(weights if values["labels"] else without_labels(weights))
        folder = Path(values["output"]) / name
        generator.save_pretrained(folder)
        print(f"{folder}: weights after {read.step} updates")


if __name__ == "__main__":
    main()
