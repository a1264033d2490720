"""A look over a whole HDF5 file in robomimic's layout: every array of every demo, and all that is wrong with them."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np

from shortcut_policy.data.env_args import ROBOSUITE, read_env_args, recorded_representation
from shortcut_policy.data.report import ArrayReport, Statistics, StoreReport, constant_columns, some
from shortcut_policy.data.robomimic_hdf5 import RobomimicFile, check_layout, describe, open_robomimic

_ROW_PER_STEP = ("actions", "actions_abs", "action_dict", "obs", "next_obs", "states", "rewards", "dones")
_BLOCK_BYTES = 1 << 24


def inspect_robomimic(path: str | Path) -> StoreReport:
    """Read every array that has a row per step, some MB at a time, and report on all of them.

    Raises:
        FileNotFoundError: when there is nothing at `path`.
        ValueError: when it is no HDF5 file of robomimic's layout, or holds no demos.
    """
    problems: list[str] = []
    with open_robomimic(path) as file:
        demos = file.demos()
        notes = _environment_notes(path, problems)
        lengths = {demo: steps for demo in demos if (steps := _inspect_steps(file, demo, problems))}
        notes += _filter_key_notes(file, demos, problems)
        total, num_steps = file.attributes.get("total"), sum(lengths.values())
        if total is not None and total != num_steps:
            notes.append(f"attribute total says {total}, but the demos have {num_steps} steps: it is not used")
        arrays = {demo: file.arrays(demo) for demo in demos}
        names = sorted({name for held in arrays.values() for name in held})
        others = [name for name in names if name.partition("/")[0] not in _ROW_PER_STEP]
        if others:
            notes.append(f"not looked at, as they have no row per step: {', '.join(others)}")
        reports = []
        for name in names:
            if name in others:
                continue
            absent = [demo for demo in demos if name not in arrays[demo]]
            if absent and name != "actions":
                problems.append(f"{name}: absent {_in_demos(absent, demos)}")
            holders = [demo for demo in demos if name in arrays[demo]]
            reports.append(_inspect_array(file, name, holders, lengths, problems, notes))
        if not any(name.startswith("obs/") for name in names):
            problems.append("there are no observations below obs/")
    steps = list(lengths.values())
    return StoreReport(
        path=str(path),
        format="robomimic HDF5",
        num_episodes=len(lengths),
        num_steps=num_steps,
        shortest=min(steps, default=None),
        median_length=float(np.median(steps)) if steps else None,
        longest=max(steps, default=None),
        arrays=tuple(report for report in reports if report is not None),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _environment_notes(path: str | Path, problems: list[str]) -> list[str]:
    try:
        env_args = read_env_args(path)
    except ValueError as error:
        problems.append(str(error))
        return []
    if env_args is None:
        return ["the environment is not recorded: there are no env_args"]
    kind = "robosuite" if env_args.type == ROBOSUITE else f"type {env_args.type}"
    version = f", version {env_args.env_version}" if env_args.env_version else ""
    meaning = recorded_representation(env_args, "actions")
    return [
        f"environment {env_args.env_name or 'without a name'} ({kind}{version})"
        + (f", controllers configured for {meaning}" if meaning else "")
    ]


def _inspect_steps(file: RobomimicFile, demo: str, problems: list[str]) -> int | None:
    try:
        return file.num_steps(demo, "actions")
    except ValueError as error:
        problems.append(str(error))
        return None


def _filter_key_notes(file: RobomimicFile, demos: Sequence[str], problems: list[str]) -> list[str]:
    notes = []
    for key in file.filter_keys():
        listed = set(file.listed(key))
        notes.append(f"filter key {key}: {len(listed)} demos")
        if absent := sorted(listed - set(demos)):
            problems.append(f"filter key {key} lists demos that do not exist ({some(absent)})")
    return notes


def _inspect_array(
    file: RobomimicFile,
    name: str,
    demos: Sequence[str],
    lengths: Mapping[str, int],
    problems: list[str],
    notes: list[str],
) -> ArrayReport | None:
    """Report on one array in the demos that hold it; None when no demo's is usable."""
    datasets: dict[str, h5py.Dataset] = {}
    bad: dict[str, list[str]] = {}  # what is wrong -> demos
    for demo in demos:
        try:
            dataset = file.array(demo, name)
            is_image = check_layout(dataset, f"{name} of {demo}")
        except ValueError as error:
            said = str(error).removeprefix(f"{name} of {demo} ").removeprefix(f"in {file} ")
            bad.setdefault(said, []).append(demo)
            continue
        first = next(iter(datasets.values()), dataset)
        if dataset.shape[1:] != first.shape[1:] or is_image != check_layout(first, name):
            bad.setdefault(f"{describe(dataset)} instead of {describe(first)}", []).append(demo)
            continue
        if demo in lengths and len(dataset) != lengths[demo]:
            bad.setdefault("another number of rows than actions", []).append(demo)
        datasets[demo] = dataset
    statistics = Statistics(next(iter(datasets.values())).shape[1:]) if datasets else None
    not_finite: list[tuple[str, int, int]] = []  # demo, first step, values
    for demo, dataset in datasets.items():
        try:
            not_finite += _scan(dataset, demo, statistics)
        except (OSError, RuntimeError):
            bad.setdefault("unreadable", []).append(demo)
    problems += [f"{name}: {what} {_in_demos(where, demos)}" for what, where in bad.items()]
    if not_finite:
        demo, step, _ = not_finite[0]
        count = sum(values for _, _, values in not_finite)
        problems.append(f"{name}: {count} values are NaN or infinite, the first at step {step} of {demo}")
    if statistics is None or statistics.count == 0:
        return None
    first = next(iter(datasets.values()))
    rows = sum(len(dataset) for dataset in datasets.values())
    if first.ndim in (2, 3) and rows > 1:
        notes += constant_columns(name, statistics)
    return ArrayReport(
        name=name,
        shape=(rows, *first.shape[1:]),
        dtype=str(first.dtype),
        chunks=first.chunks or (),
        bytes=sum(dataset.nbytes for dataset in datasets.values()),
        minimum=float(statistics.minimum.min()),
        maximum=float(statistics.maximum.max()),
        mean=statistics.mean,
        std=float(np.sqrt(statistics.squares / statistics.count)),
    )


def _scan(dataset: h5py.Dataset, demo: str, statistics: Statistics) -> Iterator[tuple[str, int, int]]:
    """Merge a demo's values block by block; yield where the first bad one of a block stands, and how many there are."""
    row_bytes = max(dataset.dtype.itemsize * int(np.prod(dataset.shape[1:])), 1)
    rows = max(_BLOCK_BYTES // row_bytes, 1)
    for start in range(0, len(dataset), rows):
        values = dataset[start : start + rows]
        finite = np.isfinite(values)
        statistics.add(values, finite, (slice(None),) * (values.ndim - 1))
        if not finite.all():
            first = int(np.argmin(finite.reshape(len(values), -1).all(axis=1)))
            yield demo, start + first, int((~finite).sum())


def _in_demos(where: Sequence[str], demos: Sequence[str]) -> str:
    return f"in {len(where)} of {len(demos)} demos ({some(where)})"
