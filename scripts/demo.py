"""The whole way in some minutes: demonstrations, training, rollouts in MuJoCo, and a report. `make demo` runs it.

Every stage is one of the other commands, shown as it could be typed. What is interrupted goes on with the same command.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from command_parts import Part, run
from hydra_command import command

from envs.rendering import choose_backend
from shortcut_policy.config import from_mapping, to_mapping
from shortcut_policy.report import ReportedRun, Stage, read_runs, write_report
from shortcut_policy.result_tables import comparison_table
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


class Record:
    """What was done in the folder of a demo, and how long it took, interruptions included: stages.json."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "stages.json"
        there = json.loads(self._path.read_text()) if self._path.exists() else []
        self.stages = {stage["name"]: from_mapping(Stage, stage) for stage in there}

    def begin(self, name: str, parts: Sequence[Part]) -> Stage:
        """The stage of some parts: new, or as far as it has come.

        Raises:
            FileExistsError: the folder holds the same stage with other values.
        """
        commands = tuple(part.command for part in parts)
        stage = self.stages.get(name, Stage(name, commands, 0.0))
        if stage.commands != commands:
            raise FileExistsError(
                f"{self._path.parent} holds another demo ({stage.commands[0]}): choose another folder=, or remove that"
            )
        return stage

    def add(self, stage: Stage, seconds: float) -> None:
        """Add to the time of a stage."""
        self.stages[stage.name] = replace(stage, seconds=round(stage.seconds + seconds, 1))
        write_json(self._path, [to_mapping(stage) for stage in self.stages.values()])


def stages_of(config: DemoConfig, videos: int) -> dict[str, list[Part]]:
    """The stages, in their order; the parts of one run at the same time."""
    folder = Path(config.folder)
    data = folder / f"{config.task}.hdf5"
    collect = ("collect_demos.py", f"task={config.task}", f"episodes={config.demonstrations}", f"output={data}")
    train = []
    for policy, values in config.policies.items():
        words = (f"task={config.task}", f"data.path={data}", f"network={config.network}", "trainer=cpu_short")
        words += (f"trainer.steps={config.updates}", f"validation.every={max(1, config.updates // 5)}")
        words += (*values, f"output={folder / policy}")
        train.append(Part(("train_policy.py", *words), folder / policy / "finished.json"))
    stages = {"collect demonstrations": [Part(collect, data)], "train": train}
    roll_out = []
    for policy in config.policies:  # they measure their latencies at the same time, each on a core of its own
        words = (f"checkpoint={folder / policy}", f"steps=[{','.join(map(str, config.steps))}]")
        words += (f"episodes={config.episodes}", "num_envs=20", "workers=1", f"videos={videos}", "latency_calls=50")
        product = folder / policy / "evaluation" / "result.json"
        roll_out.append(Part(("eval_policy.py", *words, "overwrite=true"), product))
    return {**stages, "roll out": roll_out}


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
    stages, record = stages_of(config, videos), Record(folder)
    begun = {name: record.begin(name, parts) for name, parts in stages.items()}
    for number, (name, parts) in enumerate(stages.items(), 1):
        print(f"\n[{number}/{len(stages)}] {name}", *(part.command for part in parts), sep="\n      ", flush=True)
        missing = [part for part in parts if not part.product.exists()]
        if missing:
            started = time.perf_counter()
            try:
                run(missing, whole="the demo", stage=name)
            finally:
                record.add(begun[name], time.perf_counter() - started)
        else:
            record.add(begun[name], 0.0)
            print("      done before", flush=True)
        print(f"      {record.stages[name].seconds:.0f} s", flush=True)
    runs = read_runs([folder / policy for policy in config.policies])
    report = folder / "report.html"
    done = [record.stages[name] for name in stages]
    write_report(report, runs, stages=done, next_commands=config.next_commands, no_videos=why_not)
    print(f"\n{_summary(runs, done)}\n\nOpen {report} in a browser: curves, plots{', videos' if videos else ''}.")


def _summary(runs: Sequence[ReportedRun], stages: Sequence[Stage]) -> str:
    times = [f"{stage.name:<28}{stage.seconds:>6.0f} s" for stage in stages]
    total = sum(stage.seconds for stage in stages)
    return "\n".join(
        [comparison_table([run.result for run in runs]), "", *times, f"{'together':<28}{total / 60:>6.1f} min"]
    )


if __name__ == "__main__":
    main()
