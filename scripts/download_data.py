"""Download public demonstrations and verify them.

    python scripts/download_data.py task=pusht [output=data] [mirror=URL]

puts them below the output folder. A broken download is taken up again by the same command; what is already there is
verified and left alone. A mirror is tried before the public address. Without a way to the web, put the data set's zip
file at <output>/<task>.zip and run the same command.
"""

import sys
from pathlib import Path

from tqdm import tqdm

from shortcut_policy.data.public_datasets import PUBLIC_DATASETS, install


def main(arguments: list[str]) -> int:
    """Download what the command-line words ask for and return the exit status."""
    if {"-h", "--help"} & set(arguments):
        print(f"{__doc__.strip()}\n\nTasks: {', '.join(PUBLIC_DATASETS)}")
        return 0
    try:
        words = _parse(arguments)
        with tqdm(unit="B", unit_scale=True, unit_divisor=1000, desc=words["task"]) as bar:

            def show(received: int, total: int | None) -> None:
                bar.total = total
                bar.update(received - bar.n)

            target = install(
                PUBLIC_DATASETS[words["task"]],
                Path(words["output"]),
                mirrors=[words["mirror"]] if words["mirror"] else [],
                progress=show,
            )
    except ConnectionError as error:
        print(
            f"error: {error}: try again, or put the zip file at {words['output']}/{words['task']}.zip, "
            "or say where the data lies: make demo PUSHT_DATA=path",
            file=sys.stderr,
        )
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(target)
    return 0


def _parse(arguments: list[str]) -> dict[str, str]:
    words = {"task": "", "output": "data", "mirror": ""}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in words or not equals or not value:
            raise ValueError(f"expected task=..., output=... or mirror=..., not {argument!r}")
        words[key] = value
    if words["task"] not in PUBLIC_DATASETS:
        raise ValueError(f"task={words['task']} has no public download: choose one of {', '.join(PUBLIC_DATASETS)}")
    return words


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
