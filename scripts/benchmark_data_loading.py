"""Windows per second from RAM against windows whose images are read from the file by worker processes.

    python scripts/benchmark_data_loading.py path=FILE.hdf5 observations=[agentview_image,robot0_eef_pos] \\
        batch_size=64 workers=[0,1,2] batches=100

`batches` is how many are timed each time; observation_steps=2 and horizon=16 set the window. Everything is measured in
one run, RAM first: the file is then in the system's page cache, as far as that holds it.
"""

import sys
import time

from shortcut_policy.data.array_source import ArraySource
from shortcut_policy.data.batches import WindowBatches
from shortcut_policy.data.robomimic_hdf5 import read_robomimic
from shortcut_policy.data.stored_images import find_images
from shortcut_policy.data.streamed_windows import StreamedWindows
from shortcut_policy.data.windows import make_windows

DEFAULTS = {"batch_size": "64", "workers": "[0,1,2]", "batches": "100", "observation_steps": "2", "horizon": "16"}


def parse(words: list[str]) -> dict[str, str]:
    """Turn NAME=VALUE words into a mapping; ValueError for an unknown or missing name."""
    values = dict(DEFAULTS)
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or name not in ("path", "observations", *DEFAULTS):
            known = ", ".join(f"{name}=..." for name in ("path", "observations", *DEFAULTS))
            raise ValueError(f"expected {known}, not {word!r}")
        values[name] = value
    for name in ("path", "observations"):
        if name not in values:
            raise ValueError(f"{name}=... is missing")
    return values


def names_in(text: str) -> list[str]:
    """[a,b] or a -> its parts."""
    return [part.strip() for part in text.strip("[]").split(",") if part.strip()]


def number(values: dict[str, str], name: str) -> int:
    """A positive whole number; ValueError where it is none."""
    if not values[name].isdecimal() or int(values[name]) < 1:
        raise ValueError(f"{name} must be a positive whole number, not {values[name]!r}")
    return int(values[name])


def windows_per_second(batches: WindowBatches | StreamedWindows, count: int) -> float:
    """Time `count` batches; the first one, for which the workers start, is left out."""
    batches.batch(0)
    start = time.perf_counter()
    for step in range(1, count + 1):
        batches.batch(step)
    return count * batches.batch_size / (time.perf_counter() - start)


def measure(values: dict[str, str]) -> None:
    """Print one line for RAM and one for each number of workers."""
    observations = {name: ArraySource() for name in names_in(values["observations"])}
    workers = names_in(values["workers"])
    if not all(count.isdecimal() for count in workers):
        raise ValueError(f"workers must be whole numbers, such as [0,1,2], not {values['workers']!r}")
    count, batch_size = number(values, "batches"), number(values, "batch_size")
    images = find_images(values["path"], observations)
    if not images.arrays:
        raise ValueError(f"none of {', '.join(observations)} is an image: only images are streamed")

    start = time.perf_counter()
    episodes = read_robomimic(values["path"], observations)
    seconds = time.perf_counter() - start
    size = sum(array.nbytes for array in episodes.observations.values())
    windows = make_windows(
        episodes.episode_ends,
        observation_steps=number(values, "observation_steps"),
        horizon=number(values, "horizon"),
    )
    print(f"{episodes.num_episodes} demos, {episodes.num_steps:,} steps: {size / 1e6:,.1f} MB, read in {seconds:.1f} s")
    rate = windows_per_second(WindowBatches(episodes, windows, batch_size), count)
    print(f"from RAM             {rate:12,.0f} windows/s")
    del episodes

    low_dim = {name: source for name, source in observations.items() if name not in images.arrays}
    episodes = read_robomimic(values["path"], low_dim)
    for processes in map(int, workers):
        with StreamedWindows(episodes, images, windows, batch_size, workers=processes) as batches:
            rate = windows_per_second(batches, count)
        print(f"streamed, {processes:2} workers {rate:12,.0f} windows/s")


def main(words: list[str]) -> int:
    """Run for the command-line words and return the exit status."""
    if {"-h", "--help"} & set(words):
        print(__doc__.strip())
        return 0
    try:
        measure(parse(words))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
