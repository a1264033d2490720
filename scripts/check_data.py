"""Look over demonstrations before training on them.

    python scripts/check_data.py path=DIR_or_ZIP       a zarr replay buffer
    python scripts/check_data.py path=FILE.hdf5        robomimic's layout

prints episodes, arrays and their ranges, and every problem: missing, truncated or unreadable chunks, NaN, arrays that
are too short, episode ends that do not rise; demos that do not agree, images of the wrong layout. Exit status: 0 no
problems, 1 problems, 2 nothing usable at the path.
"""

import sys

from shortcut_policy.data.report import format_report, inspect_zarr
from shortcut_policy.data.robomimic_report import inspect_robomimic

HDF5_ENDINGS = (".hdf5", ".h5")


def main(arguments: list[str]) -> int:
    """Print the report for the command-line words and return the exit status."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__.strip())
        return 0
    path = arguments[0].removeprefix("path=") if len(arguments) == 1 else ""
    if not path or not arguments[0].startswith("path="):
        print(f"expected path=DIR_or_ZIP or path=FILE.hdf5, not {' '.join(arguments) or 'nothing'!r}", file=sys.stderr)
        return 2
    try:
        report = inspect_robomimic(path) if path.lower().endswith(HDF5_ENDINGS) else inspect_zarr(path)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(format_report(report))
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
