"""Gather what the jobs of a comparison left: `... folder=outputs/pusht_comparison results=results`.

The evaluations of one objective (or of one variant: whatever stands before the seed in the names of the runs' folders)
with several training seeds become one file of `results/`; the table and the plot show them all.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra_command import command

from shortcut_policy.plots import comparison
from shortcut_policy.provenance import current_command, current_commit
from shortcut_policy.result_tables import objective_label, objective_table
from shortcut_policy.results import Result, merge_seeds, read_result, write_result

KINDS = ("comparison", "one_step")


def find_results(folder: Path, seeds: Sequence[int] = ()) -> dict[str, list[Result]]:
    """The evaluations below a folder, by the name of the objective's preset, which the runs' folders begin with.

    Args:
        folder: of the runs.
        seeds: the training seeds that are wanted; by default all.

    Raises:
        FileNotFoundError: there is none.
        ValueError: they are of several tasks.
    """
    found: dict[str, list[Result]] = defaultdict(list)
    for path in sorted(folder.glob("*/evaluation/result.json")):
        preset, _, seed = path.parents[1].name.rpartition("_")
        if not seeds or seed in map(str, seeds):
            found[preset].append(read_result(path))
    if not found:
        raise FileNotFoundError(f"{folder} holds no evaluated run: scripts/compare_objectives.py makes them")
    tasks = sorted({result.task for results in found.values() for result in results})
    if len(tasks) > 1:
        raise ValueError(f"{folder} holds runs of several tasks ({', '.join(tasks)}): collect them one by one")
    return dict(found)


def collect(
    folder: Path,
    target: Path | None,
    overwrite: bool = False,
    presets: Sequence[str] = (),
    seeds: Sequence[int] = (),
    kind: str = "comparison",
) -> list[Result]:
    """Merge the seeds of every objective and draw the plot.

    Args:
        folder: of the runs.
        target: folder for a file of every objective; None for none.
        overwrite: whether files with other figures are replaced.
        presets: the objectives that are wanted, in this order; by default all.
        seeds: the training seeds that are wanted; by default all.
        kind: what the files are called after: {task}_{kind}_{preset}.json; of `KINDS`.

    Returns:
        One result for every objective.

    Raises:
        FileNotFoundError, FileExistsError, ValueError: nothing is there, or another result, or what does not fit.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    found = find_results(folder, seeds)
    merged = []
    for preset in presets or found:
        result = merge_seeds(found[preset], current_command(), current_commit())
        merged.append(replace(result, name=f"{result.task}_{kind}_{preset}"))
    if target is not None:
        _write(merged, target, overwrite)
    picture = comparison({objective_label(result): result for result in merged}, figure_of_merit="score")
    (folder / "comparison.png").write_bytes(picture)
    return merged


def _write(results: Sequence[Result], target: Path, overwrite: bool) -> None:
    paths = {target / f"{result.name}.json": result for result in results}
    changed = [path for path, result in paths.items() if path.exists() and read_result(path).rows != result.rows]
    if changed and not overwrite:
        raise FileExistsError(f"{changed[0]} holds other figures: choose another results=, or say overwrite=true")
    for path, result in paths.items():
        if path in changed or not path.exists():
            write_result(path, result)


@command("collect_results")
def main(values: dict[str, Any]) -> None:
    """Collect, and print the table."""
    folder = Path(values["folder"])
    target = Path(values["results"]) if values["results"] else None
    results = collect(folder, target, values["overwrite"], kind=values["kind"])
    print(f"{objective_table(results)}\n\n{folder / 'comparison.png'}: score against steps and latency")


if __name__ == "__main__":
    main()
