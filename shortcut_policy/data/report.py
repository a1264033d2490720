"""A look over a whole data set: what it holds and everything that is wrong with it, not only the first thing.

The reports, their layout as text, and the look over a replay buffer; `robomimic_report` looks over HDF5 files.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import zarr

from shortcut_policy.data.episodes import check_episode_ends
from shortcut_policy.data.zarr_replay import (
    EPISODE_ENDS,
    ReplayStore,
    image_problem,
    image_range_problem,
    layout_problem,
    open_replay,
)


@dataclass(frozen=True)
class ArrayReport:
    """One array; the statistics are over its finite values and None where there are none.

    Attributes:
        name: in the data set, such as `data/<array>`.
        shape: (N, ...).
        dtype: numpy's name of it.
        chunks: shape of what is stored and compressed as one; empty where there is no such thing.
        bytes: size in RAM.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...]
    bytes: int
    minimum: float | None
    maximum: float | None
    mean: float | None
    std: float | None


@dataclass(frozen=True)
class StoreReport:
    """A whole data set; the lengths are None where the ends of the episodes cannot be used.

    Attributes:
        path: of the file or folder, which may lie in a zip file.
        format: such as "zarr format 2", None where it cannot be told.
        num_episodes: 0 where the ends of the episodes cannot be used.
        num_steps: of all episodes together.
        problems: one sentence each; data with a problem is not to be trained on.
        notes: what is worth knowing, but no mistake.
    """

    path: str
    format: str | None
    num_episodes: int
    num_steps: int
    shortest: int | None
    median_length: float | None
    longest: int | None
    arrays: tuple[ArrayReport, ...]
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def inspect_zarr(path: str | Path) -> StoreReport:
    """Read every array of a replay buffer, chunk by chunk, and report on all of them.

    Raises:
        FileNotFoundError: when there is nothing at `path`.
        ValueError: when there is no replay buffer, or more than one.
    """
    problems: list[str] = []
    notes: list[str] = []
    with open_replay(path) as store:
        zarr_format, ends = _inspect_ends(store, problems)
        reports = [_inspect_array(store, name, ends, problems, notes) for name in store.names()]
        location = str(store)
    if not reports:
        problems.append("there are no arrays below data/")
    lengths = None if ends is None else np.diff(ends, prepend=0)
    return StoreReport(
        path=location,
        format=None if zarr_format is None else f"zarr format {zarr_format}",
        num_episodes=0 if ends is None else len(ends),
        num_steps=0 if ends is None else int(ends[-1]),
        shortest=None if lengths is None else int(lengths.min()),
        median_length=None if lengths is None else float(np.median(lengths)),
        longest=None if lengths is None else int(lengths.max()),
        arrays=tuple(report for report in reports if report is not None),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _inspect_ends(store: ReplayStore, problems: list[str]) -> tuple[int | None, np.ndarray | None]:
    """Return the zarr format and the (E,) ends, each None where it cannot be had."""
    zarr_format = None
    try:
        zarr_format = store.array(EPISODE_ENDS).metadata.zarr_format
        ends = store.read(EPISODE_ENDS)
        check_episode_ends(ends)
    except ValueError as error:
        problems.append(str(error))
        return zarr_format, None
    return zarr_format, ends.astype(np.int64)


def _inspect_array(
    store: ReplayStore, name: str, ends: np.ndarray | None, problems: list[str], notes: list[str]
) -> ArrayReport | None:
    try:
        array = store.array(name)
    except ValueError as error:
        problems.append(str(error))
        return None
    if array.ndim == 0:
        problems.append(f"{name} is a single number: rows are needed")
        return None
    rows = array.shape[0]
    if ends is not None and rows < ends[-1]:
        problems.append(f"{name} has {rows} rows, but the last episode ends at {ends[-1]}")
    if ends is not None and rows > ends[-1]:
        notes.append(f"{name} has {rows - ends[-1]} rows beyond the last episode, which are ignored")
        rows = int(ends[-1])
    statistics, unfit = _scan(store, name, array, rows, ends, problems)
    if unfit is not None:
        notes.append(f"as an observation {name} would be refused: it {unfit}")
    if array.ndim in (2, 3) and rows > 1:
        notes.extend(constant_columns(name, statistics))
    return ArrayReport(
        name=name,
        shape=array.shape,
        dtype=str(array.dtype),
        chunks=array.shards or array.chunks,
        bytes=array.nbytes,
        minimum=float(statistics.minimum.min()) if statistics.count else None,
        maximum=float(statistics.maximum.max()) if statistics.count else None,
        mean=statistics.mean if statistics.count else None,
        std=float(np.sqrt(statistics.squares / statistics.count)) if statistics.count else None,
    )


def _scan(
    store: ReplayStore,
    name: str,
    array: zarr.Array,
    rows: int,
    ends: np.ndarray | None,
    problems: list[str],
) -> tuple["Statistics", str | None]:
    """Read the first `rows` rows chunk by chunk, so that images need no more RAM than a chunk.

    Returns:
        The statistics, and why the array could be no observation, where it could not.
    """
    statistics = Statistics(array.shape[1:])
    bad_chunks: dict[str, list[str]] = {}
    unfit = layout_problem(array.shape, array.dtype)
    images_to_check = array.ndim == 4 and array.dtype != np.uint8
    num_chunks = num_not_finite = 0
    first_not_finite = rows
    for chunk in store.chunks(array, rows):
        num_chunks += 1
        damage = store.damage(array, name, chunk)
        if damage is None:
            try:
                values = store.read_chunk(array, name, chunk)
            except ValueError:
                damage = "unreadable"
        if damage is not None:
            bad_chunks.setdefault(damage, []).append(chunk.key)
            continue
        finite = np.isfinite(values)
        if not finite.all():
            num_not_finite += int((~finite).sum())
            row = int(np.argmin(finite.reshape(len(values), -1).all(axis=1)))
            first_not_finite = min(first_not_finite, chunk.region[0].start + row)
        statistics.add(values, finite, chunk.region[1:])
        if images_to_check and unfit is None:
            unfit = image_problem(values)

    if images_to_check and unfit is None and statistics.count:
        unfit = image_range_problem(array.dtype, float(statistics.maximum.max()))
    for damage, keys in bad_chunks.items():
        problems.append(f"{name}: {len(keys)} of {num_chunks} chunks {damage} ({some(keys)})")
    if num_not_finite:
        where = f"step {first_not_finite}"
        if ends is not None:
            episode = int(np.searchsorted(ends, first_not_finite, side="right"))
            start = ends[episode - 1] if episode else 0
            where += f" (step {first_not_finite - start} of episode {episode})"
        problems.append(f"{name}: {num_not_finite} values are NaN or infinite, the first at {where}")
    return statistics, unfit


@dataclass
class Statistics:
    """Running statistics of the finite values, in float64: minimum and maximum per column, mean and std of all."""

    shape: tuple[int, ...]  # of one row
    count: int = 0
    mean: float = 0.0
    squares: float = 0.0  # sum of squared deviations from the mean
    minimum: np.ndarray = field(init=False)
    maximum: np.ndarray = field(init=False)

    def __post_init__(self):
        self.minimum = np.full(self.shape, np.inf)
        self.maximum = np.full(self.shape, -np.inf)

    def add(self, values: np.ndarray, finite: np.ndarray, columns: tuple[slice, ...]) -> None:
        """Merge the values (n, ...) of some columns by Chan et al.'s formula, which does not cancel."""
        count = int(finite.sum())
        if count == 0:
            return
        self.minimum[columns] = np.minimum(self.minimum[columns], np.where(finite, values, np.inf).min(axis=0))
        self.maximum[columns] = np.maximum(self.maximum[columns], np.where(finite, values, -np.inf).max(axis=0))
        values = values[finite].astype(np.float64)
        mean = float(values.mean())
        squares = float(np.square(values - mean).sum())
        total = self.count + count
        self.squares += squares + (mean - self.mean) ** 2 * self.count * count / total
        self.mean += (mean - self.mean) * count / total
        self.count = total


def constant_columns(name: str, statistics: Statistics) -> list[str]:
    """Return a note about the columns that never change, if there are any."""
    constant = np.argwhere(statistics.minimum == statistics.maximum)
    if len(constant) == 0:
        return []
    value = statistics.minimum[tuple(constant[0])]
    columns = some([",".join(map(str, index)) for index in constant])
    noun = "column" if len(constant) == 1 else "columns"
    return [f"{name}: {noun} {columns} constant ({value:g}{', ...' if len(constant) > 1 else ''})"]


def some(names: Sequence[str], limit: int = 5) -> str:
    """Join the first few names."""
    return ", ".join(names[:limit]) + (", ..." if len(names) > limit else "")


def format_report(report: StoreReport) -> str:
    """Lay the report out as plain text of several lines, without a newline at the end."""
    lines = [f"{report.path}" + (f" ({report.format})" if report.format else "")]
    if report.num_episodes:
        lines.append(
            f"{report.num_episodes:,} episodes, {report.num_steps:,} steps; "
            f"{report.shortest} to {report.longest} steps each, median {report.median_length:g}"
        )
    if report.arrays:
        lines += ["", *_table(report.arrays)]
    if report.notes:
        lines += ["", "Notes", *(f"  - {note}" for note in report.notes)]
    if report.problems:
        lines += ["", "Problems", *(f"  - {problem}" for problem in report.problems)]
    else:
        lines += ["", "No problems found."]
    return "\n".join(lines)


def _table(arrays: Sequence[ArrayReport]) -> list[str]:
    header = ["array", "type", "shape", "chunks", "in RAM", "min", "max", "mean", "std"]
    rows = [
        [
            array.name,
            array.dtype,
            " x ".join(map(str, array.shape)),
            " x ".join(map(str, array.chunks)) or "-",
            f"{array.bytes / 1e6:,.1f} MB",
            *(_number(value) for value in (array.minimum, array.maximum, array.mean, array.std)),
        ]
        for array in arrays
    ]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    num_left = 4  # names and shapes to the left, numbers to the right
    return [
        "  ".join(
            cell.ljust(width) if column < num_left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in [header, ["-" * width for width in widths], *rows]
    ]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
