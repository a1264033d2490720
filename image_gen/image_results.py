"""How good and how fast an image generator is in a number of steps: a file of `results/`, and the table of several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shortcut_policy.config import read_json


@dataclass(frozen=True)
class ImageRow:
    """One number of steps.

    Attributes:
        steps, nfe: sampling steps, and the network evaluations made of them (with guidance: of twice the rows).
        frechet: Fréchet distance to the reference.
        images_per_second: sampled by all processes together, without the features.
        samples: a grid of some, see `image_gen.grid.grid_to_text`; from the same noise for every number of steps.
    """

    steps: int
    nfe: int
    frechet: float
    images_per_second: float
    samples: str


@dataclass(frozen=True)
class ImageResult:
    """One generator.

    Attributes:
        objective, options: what was trained, and the whole configuration.
        parameters: of the network.
        updates, seconds, train_command, train_commit, train_hardware: of the training.
        features: network in whose features the distance is taken.
        reference: what the samples are compared with.
        floor: the distance of as many real images from the rest of the reference; None where that is published
            statistics.
        count, seed, guidance: of the samples.
        rows: by number of steps.
    """

    name: str
    dataset: str
    objective: str
    options: Mapping[str, Any]
    parameters: int
    updates: int
    seconds: float
    train_command: str
    train_commit: str
    train_hardware: str
    command: str
    commit: str
    hardware: str
    versions: Mapping[str, str]
    features: str
    reference: str
    floor: float | None
    count: int
    seed: int
    guidance: float
    rows: tuple[ImageRow, ...]


def read_image_result(path: Path) -> ImageResult:
    """Read a file of `results/`.

    Raises:
        ValueError: it is no JSON or does not follow the schema.
    """
    return read_json(ImageResult, path)


def image_table(results: Sequence[ImageResult]) -> str:
    """Fréchet distances: objectives by rows, numbers of steps by columns, as in the paper.

    Raises:
        ValueError: the results cannot be compared, or there are none.
    """
    if not results:
        raise ValueError("there are no results of image generators to show")
    first = results[0]
    for result in results[1:]:
        for name in ("dataset", "features", "reference", "count", "guidance"):
            if getattr(result, name) != getattr(first, name):
                raise ValueError(
                    f"{result.name} cannot stand beside {first.name}: {name} is {getattr(result, name)!r} there and "
                    f"{getattr(first, name)!r} here"
                )
        if [row.steps for row in result.rows] != [row.steps for row in first.rows]:
            raise ValueError(f"{result.name} cannot stand beside {first.name}: they have other numbers of steps")
    counts = [row.steps for row in first.rows]
    lines = [
        f"| objective | {' | '.join(f'{n} step' + 's' * (n > 1) for n in counts)} | updates | training |",
        f"|:---|{'---:|' * len(counts)}---:|---:|",
    ]
    for result in results:
        cells = " | ".join(f"{row.frechet:.2f}" for row in result.rows)
        lines.append(f"| {result.objective} | {cells} | {result.updates:,} | {result.seconds / 60:.0f} min |")
    floor = "" if first.floor is None else f" As many real images are {first.floor:.2f} away from the rest of it."
    guidance = "" if first.guidance == 1.0 else f", guidance {first.guidance:g}"
    lines += [
        "",
        f"Fréchet distance of {first.count:,} samples{guidance} to {first.reference}, in the features of "
        f"{first.features}.{floor} One training each.",
    ]
    return "\n".join(lines)
