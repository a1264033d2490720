"""Download public demonstrations and verify them.

    python scripts/download_data.py task=pusht [output=data] [mirror=URL]
    python scripts/download_data.py task=lift|can|square|transport|tool_hang|all source=ph|mh
                                    [kind=low_dim|demo] [version=v15|v141] [output=data] [mirror=URL]

puts Push-T at <output>/pusht/pusht_cchi_v7_replay.zarr and a robomimic set at <output>/robomimic/TASK/SOURCE/, as
low_dim_v15.hdf5 for instance. kind=low_dim has state observations; kind=demo has the simulator states from which other
observations, images say, are made. version=v15 was made with robosuite 1.5, v141 with 1.4.1. task=all fetches one set
for every robosuite task and goes on when one fails.

A broken download is taken up again by the same command; what is already there is verified and never overwritten. A
mirror is tried before the public address: the address of the file or, ending in "/", of a folder with files such as
lift/ph/low_dim_v15.hdf5 or pusht.zip. Without a way to the web, put the file where the command says it looks for it.

What is verified, and when:
  before the bytes    what the server announces as size and sha256, against those listed below
  after the bytes     size and sha256: those listed below or, where none are, those that Hugging Face publishes
                      (version=v141 has no published sha256)
  before it is named  the content: a robomimic file opens, is of this task, has all 200 (ph) or 300 (mh)
                      demonstrations, and each is complete; Push-T's arrays have the known sha256
  the next time       a file that is there, against the sha256 listed below or the one recorded in FILE.sha256 when it
                      was downloaded (`sha256sum -c` reads it), and its content

Exit status: 0 all there, 1 something could not be fetched or is not what it should be, 2 the words make no sense.
"""

import sys
from pathlib import Path

from tqdm import tqdm

from shortcut_policy.data.public_datasets import PUSHT, ROBOMIMIC, PublicDataset, select_datasets


def main(arguments: list[str]) -> int:
    """Download what the command-line words ask for and return the exit status."""
    if {"-h", "--help"} & set(arguments):
        print(f"{__doc__.strip()}\n\n{_listing()}")
        return 0
    try:
        words = _parse(arguments)
        datasets = select_datasets(words["task"], words["source"], words["kind"], words["version"])
        if words["mirror"] and len(datasets) > 1 and not words["mirror"].endswith("/"):
            raise ValueError(f"mirror={words['mirror']} is one file: for task=all give a folder, ending in '/'")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return max([_install(dataset, Path(words["output"]), words["mirror"]) for dataset in datasets])


def _parse(arguments: list[str]) -> dict[str, str]:
    words = {"task": "", "source": "", "kind": "", "version": "", "output": "data", "mirror": ""}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in words or not equals or not value:
            expected = ", ".join(f"{word}=..." for word in words)
            raise ValueError(f"expected words like {expected}, not {argument!r}")
        words[key] = value
    return words


def _install(dataset: PublicDataset, folder: Path, mirror: str) -> int:
    """Fetch one set, say where it is or why not, and return the exit status."""
    if mirror.endswith("/"):
        mirror += dataset.path
    try:
        with tqdm(unit="B", unit_scale=True, unit_divisor=1000, desc=dataset.path) as bar:

            def show(received: int, total: int | None) -> None:
                bar.total = total
                bar.update(received - bar.n)

            target = dataset.install(folder, mirrors=[mirror] if mirror else [], progress=show)
    except ConnectionError as error:
        other = ", or say where the data lies: make demo PUSHT_DATA=path" if dataset is PUSHT else ""
        hint = f"try again, or put the file at {folder / dataset.place}{other}"
        print(f"error: {error}: {hint}", file=sys.stderr)
        return 1
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(target)
    return 0


def _listing() -> str:
    """Return one line per set, with demonstrations, size and sha256."""
    lines = ["Sets (size and sha256 where they are known beforehand; version=v141 has all of robomimic's too):"]
    lines.append(f"{'  task=pusht':<44} 206")
    for dataset in ROBOMIMIC.values():
        if dataset.version == "v15":
            words = f"task={dataset.task} source={dataset.source} kind={dataset.kind}"
            size = f"{dataset.size / 1e6:.1f} MB" if dataset.size else ""
            lines.append(f"  {words:<42} {dataset.num_demos} {size:>9}  {dataset.sha256 or ''}".rstrip())
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
