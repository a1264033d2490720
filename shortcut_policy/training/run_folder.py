"""The folder of a run: its configuration, its checkpoints, and the rule that nothing in it is ever overwritten.

run.json                      the configuration; the same one resumes the run, another is refused
metrics.jsonl
checkpoints/step_00001000/    a checkpoint, complete from the moment it has this name
checkpoints/last, best        links to checkpoints
finished.json                 written when the run is complete
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any


class RunFolder:
    """The folder of one run.

    Args:
        path: it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.checkpoints = self.path / "checkpoints"

    def claim(self, config: Mapping[str, Any]) -> Path | None:
        """Begin or resume the run with this configuration.

        Returns:
            The checkpoint to resume from, or None to begin at step 0.

        Raises:
            FileExistsError: the folder holds something else: another configuration, a finished run, foreign files.
        """
        config = json.loads(json.dumps(config))
        record = self.path / "run.json"
        if record.exists():
            there = json.loads(record.read_text())
            difference = next(_differences(there, config), None)
            if difference is not None:
                raise FileExistsError(
                    f"{self.path} holds another run ({difference}): choose another output, or remove it"
                )
            if (self.path / "finished.json").exists():
                raise FileExistsError(f"{self.path} holds this run, finished: choose another output, or remove it")
            last = self.checkpoints / "last"
            steps = self._steps()
            return last.resolve() if last.exists() else steps[-1].resolve() if steps else None
        begun = {self.checkpoints.name, f".{record.name}"}  # what is there if a claim was cut short
        if self.path.exists() and any(path.name not in begun for path in self.path.iterdir()):
            raise FileExistsError(f"{self.path} holds files that are no run of ours: choose another output")
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_json(record, config)
        return None

    def has(self, step: int) -> bool:
        """Whether there is a checkpoint of this step."""
        return (self.checkpoints / f"step_{step:08d}").exists()

    def unfinished(self, step: int) -> Path:
        """Where a checkpoint is written before it has its name."""
        return self.checkpoints / f".step_{step:08d}"

    def save(self, step: int, write: Callable[[Path], None], *, is_best: bool, keep: int) -> Path:
        """Write a checkpoint under a temporary name, rename it, and move the links; then drop old ones.

        Args:
            write: fills the folder it is given.
            is_best: whether `best` shall point to it.
            keep: how many of the last checkpoints stay, besides the best.
        """
        final = self.checkpoints / f"step_{step:08d}"
        if not self.has(step):
            temporary = self.unfinished(step)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            write(temporary)
            _flush(temporary)
            temporary.rename(final)
        if is_best:
            self._link("best", final)
        self._link("last", final)
        best = self.checkpoints / "best"
        kept = {best.resolve()} if best.exists() else set()
        # later ones can be there if the newest was removed by hand: they do not push out what is being written
        for old in [path for path in self._steps() if path.name <= final.name][:-keep]:
            if old.resolve() not in kept:
                shutil.rmtree(old)
        return final

    def finish(self, summary: Mapping[str, Any]) -> None:
        """Mark the run as complete."""
        write_json(self.path / "finished.json", summary)

    def _steps(self) -> list[Path]:
        return sorted(path for path in self.checkpoints.glob("step_*") if re.fullmatch(r"step_\d{8}", path.name))

    def _link(self, name: str, target: Path) -> None:
        temporary = self.checkpoints / f".{name}"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(target.name)
        temporary.rename(self.checkpoints / name)


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write JSON under a temporary name and rename it."""
    temporary = path.with_name(f".{path.name}")
    with temporary.open("w") as file:
        file.write(json.dumps(values, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)


def _flush(folder: Path) -> None:
    """Have the files on disk before the folder gets its name: a power cut must not leave an empty one."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _differences(there: Any, here: Any, where: str = "") -> Iterator[str]:
    if isinstance(there, dict) and isinstance(here, dict):
        new = {key for key in here.keys() - there.keys() if not here[key]}  # did not exist then, and is off: null, 0
        for key in sorted((there.keys() | here.keys()) - new):
            yield from _differences(there.get(key), here.get(key), f"{where}.{key}" if where else key)
    elif there != here:
        yield f"{where} is {there!r} there and {here!r} here"
