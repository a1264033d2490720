"""Turn a checkpoint of the paper's code into ours: `... checkpoint=FILE output=DIR`; `--help` lists all values.

Both sets of weights become checkpoint folders, which scripts/sample_images.py and scripts/train_image.py take.
"""

from pathlib import Path
from typing import Any

from hydra_command import command

from image_gen.generator import Generator, GeneratorConfig
from image_gen.official_checkpoint import read_official_checkpoint
from image_gen.official_weights import convert_weights, official_sizes
from shortcut_policy.config import Component
from shortcut_policy.provenance import current_command


@command("import_official")
def main(values: dict[str, Any]) -> None:
    """Convert, or say what does not fit."""
    read = read_official_checkpoint(values["checkpoint"])
    sizes = official_sizes(read.params, values["heads"])
    objective = Component(values["objective"].pop("name"), values["objective"])
    config = GeneratorConfig(
        channels=sizes["channels"],
        size=values["size"],
        num_classes=sizes["num_classes"],
        network=Component("dit", sizes["network"]),
        objective=objective,
        metadata={"official": {"step": read.step, "command": current_command()}},
    )
    for name, params in (("ema", read.params_ema), ("online", read.params)):
        generator = Generator.create(config, 0)
        generator.network.load_state_dict(convert_weights(params))
        folder = Path(values["output"]) / name
        generator.save_pretrained(folder)
        print(f"{folder}: weights after {read.step} updates")


if __name__ == "__main__":
    main()
