"""The whole way in some minutes: demonstrations, training, rollouts in MuJoCo, and a report. `make demo` runs it.

Every stage is one of the other commands, shown as it could be typed. What is interrupted goes on with the same command.
"""

import json
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra_command import command

from envs.rendering import choose_backend
from shortcut_policy.config import from_mapping, to_mapping
from shortcut_policy.report import ReportedRun, Stage, read_runs, write_report
from shortcut_policy.results import comparison_table, policy_name
from shortcut_policy.training.interruption import TrainingInterrupted
from shortcut_policy.training.run_folder import write_json

SCRIPTS = Path(__file__).parent


@dataclass(frozen=True)
class DemoConfig:
    """The values of `configs/demo.yaml`."""

    task: str
    demonstrations: int
    policies: Mapping[str, tuple[str, ...]]
    network: str
    updates: int
    steps: tuple[int, ...]
    episodes: int
    videos: int
    folder: str
    next_commands: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.policies:
            raise ValueError("policies={} leaves nothing to train: name at least one")


@dataclass(frozen=True)
class Part:
    """A stage to be done: its name, the words of its command, and the file that is there when it is complete."""

    name: str
    words: tuple[str, ...]
    product: Path

    @property
    def command(self) -> str:
        """As it could be typed."""
        return f"python scripts/{shlex.join(self.words)}"


class Record:
    """What was done in the folder of a demo, and how long it took, interruptions included: stages.json."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "stages.json"
        there = json.loads(self._path.read_text()) if self._path.exists() else []
        self.stages = {stage["name"]: from_mapping(Stage, stage) for stage in there}

    def begin(self, part: Part) -> Stage:
        """The stage of a part: new, or as far as it has come.

        Raises:
            FileExistsError: the folder holds the same stage with other values.
        """
        stage = self.stages.get(part.name, Stage(part.name, part.command, 0.0))
        if stage.command != part.command:
            raise FileExistsError(
                f"{self._path.parent} holds another demo ({stage.command}): choose another folder=, or remove that one"
            )
        return stage

    def add(self, stage: Stage, seconds: float) -> None:
        """Add to the time of a stage."""
        self.stages[stage.name] = replace(stage, seconds=round(stage.seconds + seconds, 1))
        write_json(self._path, [to_mapping(stage) for stage in self.stages.values()])


def parts_of(config: DemoConfig, videos: int) -> list[Part]:
    """The stages, in their order."""
    folder = Path(config.folder)
    data = folder / f"{config.task}.hdf5"
    collect = ("collect_demos.py", f"task={config.task}", f"episodes={config.demonstrations}", f"output={data}")
    parts = [Part("collect demonstrations", collect, data)]
    for policy, values in config.policies.items():
        words = (f"task={config.task}", f"data.path={data}", f"network={config.network}", "trainer=cpu_short")
        words += (f"trainer.steps={config.updates}", *values, f"output={folder / policy}")
        product = folder / policy / "finished.json"
        parts.append(Part(f"train: {policy_name(policy)}", ("train_policy.py", *words), product))
    for policy in config.policies:
        words = (f"checkpoint={folder / policy}", f"steps=[{','.join(map(str, config.steps))}]")
        words += (f"episodes={config.episodes}", f"videos={videos}", "overwrite=true")
        product = folder / policy / "evaluation" / "result.json"
        parts.append(Part(f"roll out: {policy_name(policy)}", ("eval_policy.py", *words), product))
    return parts


def run(part: Part) -> int:
    """Run the command of a part to its end: its exit code. Ctrl-C reaches it by itself, and it may save what it has."""
    process = subprocess.Popen([sys.executable, str(SCRIPTS / part.words[0]), *part.words[1:]])
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue


def drawable(videos: int) -> tuple[int, str | None]:
    """How many episodes can be filmed here, and why not, if none."""
    if videos == 0:
        return 0, "none were asked for"
    try:
        choose_backend()
    except ImportError as error:
        return 0, str(error)
    return videos, None


@command("demo")
def main(values: dict[str, Any]) -> None:
    """Do what is not done yet, and write the report."""
    config = from_mapping(DemoConfig, values)
    videos, why_not = drawable(config.videos)
    if why_not:
        print(f"note: there will be no videos: {why_not}")
    folder = Path(config.folder)
    folder.mkdir(parents=True, exist_ok=True)
    parts, record = parts_of(config, videos), Record(folder)
    stages = [record.begin(part) for part in parts]
    for number, (part, stage) in enumerate(zip(parts, stages, strict=True), 1):
        print(f"\n[{number}/{len(parts)}] {part.name}\n      {part.command}", flush=True)
        if part.product.exists():
            print(f"      done before, in {stage.seconds:.0f} s")
            continue
        started = time.perf_counter()
        code = run(part)
        record.add(stage, time.perf_counter() - started)
        if code:
            _stop(part, code)
        print(f"      {record.stages[part.name].seconds:.0f} s", flush=True)
    runs = read_runs([folder / policy for policy in config.policies])
    report = folder / "report.html"
    done = [record.stages[part.name] for part in parts]
    write_report(report, runs, stages=done, next_commands=config.next_commands, no_videos=why_not)
    print(f"\n{_summary(runs, done)}\n\nOpen {report} in a browser: curves, plots{', videos' if videos else ''}.")


def _stop(part: Part, code: int) -> None:
    number = -code if code < 0 else code - 128 if code > 128 else 0
    if number in (signal.SIGINT, signal.SIGTERM):
        raise TrainingInterrupted("the demo was interrupted: the same command goes on", number)
    print(f"error: the stage '{part.name}' failed (exit code {code}), see above", file=sys.stderr)
    sys.exit(code if code > 0 else 1)


def _summary(runs: Sequence[ReportedRun], stages: Sequence[Stage]) -> str:
    times = [f"{stage.name:<28}{stage.seconds:>6.0f} s" for stage in stages]
    total = sum(stage.seconds for stage in stages)
    return "\n".join(
        [comparison_table([run.result for run in runs]), "", *times, f"{'together':<28}{total / 60:>6.1f} min"]
    )


if __name__ == "__main__":
    main()
