"""Recordings with simulator states become robomimic data sets: their states are replayed in the installed simulator.

Observations, images and absolute actions are computed anew; states and the model stay as recorded, and so do delta
actions but for what the controller would clip (robomimic wants actions in [-1, 1]).
"""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np

from envs.env_args import simulator_versions
from envs.rendering import choose_backend
from envs.replay import OpenLoop, ReplayedDemo
from shortcut_policy.data.checksums import file_sha256
from shortcut_policy.data.recording import Recording, read_demo, read_recording
from shortcut_policy.data.robomimic_writer import Demo, RobomimicWriter, split_masks
from shortcut_policy.replay_workers import replay_demos

__all__ = ["ConversionConfig", "ConversionReport", "ConvertedDemo", "convert", "format_report"]


@dataclass(frozen=True)
class ConversionConfig:
    """What to convert, and how.

    Attributes:
        input: HDF5 file whose demos hold `states`, delta `actions` and `model_file`.
        output: HDF5 file to be.
        cameras: which become `obs/{camera}_image`; needs GL.
        camera_size: side of these images, px.
        next_obs: write `next_obs` too, for robomimic's algorithms other than imitation.
        done_mode: robomimic's number for where `dones` is 1: after success (0), at the last step (1), both (2).
        keep: which demos are written, "successful" are those whose delta and absolute actions succeed open loop.
        valid_fraction: share of the demos that become `mask/valid`, where the input has no masks.
        seed: of that choice.
        workers: processes that replay.
    """

    input: str
    output: str
    cameras: tuple[str, ...] = ()
    camera_size: int = 84
    next_obs: bool = False
    done_mode: Literal[0, 1, 2] = 2
    keep: Literal["all", "successful"] = "all"
    valid_fraction: float = 0.1
    seed: int = 0
    workers: int = 2

    def __post_init__(self) -> None:
        for name in ("camera_size", "workers"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, got {self.seed}")
        if not 0 <= self.valid_fraction < 1:
            raise ValueError(f"valid_fraction must lie in [0, 1), got {self.valid_fraction}")
        if len(set(self.cameras)) < len(self.cameras):
            raise ValueError(f"cameras must differ, got {list(self.cameras)}")
        if Path(self.input).resolve() == Path(self.output).resolve():
            raise ValueError(f"input and output are the same file, {self.input}: choose another output=")


@dataclass(frozen=True)
class ConvertedDemo:
    """One demo: its steps, how its actions did open loop, and whether it was written."""

    name: str
    steps: int
    delta: OpenLoop
    absolute: OpenLoop
    written: bool


@dataclass(frozen=True)
class ConversionReport:
    """All demos of the input, and the versions of robosuite."""

    demos: tuple[ConvertedDemo, ...]
    env_name: str
    recorded_version: str | None
    installed_version: str


def convert(config: ConversionConfig, progress: Callable[[int, int], None] = lambda done, of: None) -> ConversionReport:
    """Convert a recording, or go on where the same conversion was interrupted.

    Args:
        config: what and how.
        progress: called with the number of steps done and to be done, whenever a demo is finished.

    Raises:
        FileNotFoundError: there is no input.
        FileExistsError: the output exists, or is begun from another input or with other settings.
        ValueError: the input cannot be replayed.
        ImportError: robosuite is not installed, or cameras are asked for and there is no GL.
        ChildProcessError: a worker process died; the same conversion goes on.
    """
    recording = read_recording(config.input)
    versions = simulator_versions()
    source = {"input": file_sha256(recording.path)}
    settings = {name: getattr(config, name) for name in ("cameras", "camera_size", "next_obs", "done_mode")}
    writer = RobomimicWriter(config.output, {**source, **settings, **versions})
    if config.cameras:
        choose_backend()  # once for all workers, and before anything is begun
    try:
        _replay_missing(recording, writer, config, progress)
    except ValueError:
        writer.discard()  # whatever mends the input makes it another one
        raise
    demos = tuple(_converted(name, writer.attributes(name), config.keep) for name in recording.steps)
    written = [demo.name for demo in demos if demo.written]
    if not written:
        raise ValueError(f"no demo of {config.input} is successful when its actions are replayed: say keep=all")
    writer.assemble(
        written,
        _env_args(recording, config),
        _masks(recording, written, config),
        {"source_sha256": source["input"], **{f"converted_with_{name}": number for name, number in versions.items()}},
    )
    env_args = recording.env_args
    return ConversionReport(demos, env_args.env_name, env_args.env_version, versions["robosuite"])


def format_report(report: ConversionReport) -> str:
    """Lay the report out as a table with the totals below."""
    header = f"{'':>16}{'delta actions replayed':^46}{'absolute actions replayed':^46}".rstrip()
    columns = f"{'success':>10}{'mm mean':>10}{'max':>8}{'mrad mean':>10}{'max':>8}"
    lines = [header, f"{'demo':<10}{'steps':>6}{columns}{columns}"]
    for demo in report.demos:
        left_out = "" if demo.written else "  left out"
        lines.append(f"{demo.name:<10}{demo.steps:>6}{_cells(demo.delta)}{_cells(demo.absolute)}{left_out}")
    count = len(report.demos)
    delta, absolute = (sum(getattr(demo, kind).success for demo in report.demos) for kind in ("delta", "absolute"))
    recorded = report.recorded_version or "of unknown version"
    return "\n".join(
        [
            *lines,
            f"{report.env_name}, recorded with robosuite {recorded}, replayed with {report.installed_version}: "
            f"{delta} of {count} demos still succeed when their delta actions are replayed, "
            f"{absolute} of {count} with absolute ones",
        ]
    )


def _replay_missing(
    recording: Recording, writer: RobomimicWriter, config: ConversionConfig, progress: Callable[[int, int], None]
) -> None:
    finished = writer.finished()
    missing = [demo for demo in recording.steps if demo not in finished]
    total = sum(recording.steps.values())
    done = total - sum(recording.steps[demo] for demo in missing)
    progress(done, total)
    replays = replay_demos(
        recording.path,
        missing,
        asdict(recording.env_args),
        cameras=config.cameras,
        camera_size=config.camera_size,
        workers=config.workers,
    )
    with closing(replays):
        for name, replayed in replays:
            writer.add(name, _demo(recording, name, replayed, config))
            done += recording.steps[name]
            progress(done, total)


def _demo(recording: Recording, name: str, replayed: ReplayedDemo, config: ConversionConfig) -> Demo:
    recorded = read_demo(recording, name)
    is_last = np.arange(len(recorded.actions)) == len(recorded.actions) - 1
    done = {0: replayed.successes, 1: is_last, 2: replayed.successes | is_last}[config.done_mode]
    return Demo(
        actions=replayed.actions,
        observations={key: values[:-1] for key, values in replayed.observations.items()},
        rewards=replayed.rewards,
        dones=done,
        states=recorded.states,
        model=recorded.model,
        arrays={"actions_abs": replayed.absolute_actions},
        next_observations={key: values[1:] for key, values in replayed.observations.items()} if config.next_obs else {},
        attributes=_attributes("delta", replayed.delta) | _attributes("absolute", replayed.absolute),
    )


def _attributes(actions: str, replay: OpenLoop) -> dict[str, Any]:
    """A demo's attributes `replay_success_delta` (bool), `replay_max_position_error_delta` (m), ..."""
    return {f"replay_{name}_{actions}": value for name, value in asdict(replay).items()}


def _converted(name: str, attributes: Mapping[str, Any], keep: str) -> ConvertedDemo:
    delta, absolute = (
        OpenLoop(**{field.name: attributes[f"replay_{field.name}_{actions}"].item() for field in fields(OpenLoop)})
        for actions in ("delta", "absolute")
    )
    written = keep == "all" or (delta.success and absolute.success)
    return ConvertedDemo(name, int(attributes["num_samples"]), delta, absolute, written)


def _env_args(recording: Recording, config: ConversionConfig) -> dict[str, Any]:
    """Those of the recording, and its version of robosuite: observations are composed as that one did."""
    args = {name: value for name, value in asdict(recording.env_args).items() if value is not None}
    if config.cameras:
        size = [config.camera_size] * len(config.cameras)
        args["env_kwargs"] |= {"camera_names": list(config.cameras), "camera_heights": size, "camera_widths": size}
    return args


def _masks(recording: Recording, written: list[str], config: ConversionConfig) -> dict[str, tuple[str, ...]]:
    if not recording.masks:
        return split_masks(written, config.valid_fraction, config.seed)
    kept = {key: tuple(name for name in demos if name in written) for key, demos in recording.masks.items()}
    return {key: demos for key, demos in kept.items() if demos}


def _cells(replay: OpenLoop) -> str:
    figures = [
        1000 * error  # mm, mrad
        for kind in ("position", "rotation")
        for error in (getattr(replay, f"mean_{kind}_error"), getattr(replay, f"max_{kind}_error"))
    ]
    return f"{'yes' if replay.success else 'no':>10}" + "".join(
        f"{figure:>{width}.2f}" for figure, width in zip(figures, (10, 8, 10, 8), strict=True)
    )
