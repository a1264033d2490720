"""What a shortcut update of a DiT costs, and how fast it samples: the files `results/images_{cpu|gpu}*.json`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from shortcut_policy.config import Component, read_json

__all__ = ["ImageSpeed", "image_speed_table", "read_image_speed"]


@dataclass(frozen=True)
class ImageSpeed:
    """A file of `results/`.

    Attributes:
        network, objective: with their options.
        parameters: of the network.
        batch_size, precision, compile: of the update.
        images: channels, height and width of what the network makes.
        count: images that are sampled at a time.
        repeats: of each measurement; all are made in turns.
        milliseconds_p50: medians, by what was timed.
        ratio: of a shortcut update to a bare forward and backward pass over the same batch.
        flops_per_update: operations of the network in an update, the bootstrap targets included.
        peak_tflops, peak: of the device, and where the number comes from.
        utilisation: share of the peak that an update reaches.
        images_per_second: by number of steps.
    """

    name: str
    network: Component
    objective: Component
    parameters: int
    batch_size: int
    precision: str
    compile: bool
    images: tuple[int, ...]
    count: int
    repeats: int
    milliseconds_p50: Mapping[str, float]
    ratio: float
    flops_per_update: float
    peak_tflops: float
    peak: str
    utilisation: float
    images_per_second: Mapping[str, float]
    command: str
    commit: str
    hardware: str
    versions: Mapping[str, str]


def read_image_speed(path: Path) -> ImageSpeed:
    """Read a file of `results/`.

    Raises:
        ValueError: it is no JSON or does not follow the schema.
    """
    return read_json(ImageSpeed, path)


def image_speed_table(results: Sequence[ImageSpeed]) -> str:
    """One row for each measurement: the update, what it is made of, and images per second by number of steps.

    Raises:
        ValueError: there are none, or they sample in other numbers of steps.
    """
    if not results:
        raise ValueError("there are no speeds of image generators to show")
    counts = list(results[0].images_per_second)
    for result in results:
        if list(result.images_per_second) != counts:
            raise ValueError(f"{result.name} cannot stand beside {results[0].name}: they have other numbers of steps")
    heads = [f"images/s in {count}" for count in counts]
    lines = [
        "| network | shortcut update | forward + backward | ratio | two bootstrap forwards | of the peak | "
        f"{' | '.join(heads)} |",
        f"|:---|{'---:|' * (5 + len(counts))}",
    ]
    for result in results:
        parts = result.milliseconds_p50
        times = [
            f"{parts[name]:.1f} ms" for name in ("shortcut update", "forward + backward", "two bootstrap forwards")
        ]
        speeds = " | ".join(f"{speed:,.0f}" for speed in result.images_per_second.values())
        size = "x".join(map(str, result.images))
        lines.append(
            f"| {result.parameters / 1e6:.1f} M parameters, {size}, batch {result.batch_size}, {result.precision} | "
            f"{times[0]} | {times[1]} | {result.ratio:.2f} | {times[2]} | {result.utilisation:.0%} | {speeds} |"
        )
    first = results[0]
    lines += [
        "",
        f"Medians of {first.repeats}, measured in turns on {first.hardware}; {first.count} images are sampled at a "
        f"time. *Of the peak*: operations of the network, over those that the device makes in the same time "
        f"({first.peak_tflops:.3g} TFLOP/s, {first.peak}). `{first.command}`",
    ]
    return "\n".join(lines)
