"""Tell what works on this machine, and how to mend what does not.

    python scripts/doctor.py [seconds=1]

looks at the packages (ranges: pyproject.toml; tested versions: constraints.txt), the GPU, the GL backends that draw
MuJoCo's pictures without a display, the data, and lets every environment step for some seconds.

    ok  works    --  not installed or not there, which may be fine    !!  to be mended

    python scripts/doctor.py rollout=lift [seconds=1]

tries this environment alone and shows all that it prints. Exit status: 0 if all that is installed works, 1 if not, 2
for wrong words.
"""

import os
import sys
import textwrap
from pathlib import Path
from typing import Any

MARKS = {"works": ("ok", "32"), "absent": ("--", "33"), "problem": ("!!", "31")}  # state: mark, colour
WIDTH = 98


def main(arguments: list[str]) -> int:
    """Print the diagnosis for the command-line words and return the exit status."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__.strip())
        return 0
    if sys.version_info < (3, 11):  # noqa: UP036 (this file runs on older ones to say so)
        print(f"Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]}", file=sys.stderr)
        return 1
    checkout = Path(__file__).resolve().parents[1]
    sys.path.append(str(checkout))  # the package may not be installed yet
    try:
        words = _parse(arguments)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if words["rollout"]:
        return _try_alone(words["rollout"], words["seconds"])
    from shortcut_policy.diagnosis import diagnose

    problems = 0
    for title, findings in diagnose(checkout, seconds=words["seconds"]):
        print(title, flush=True)
        for finding in findings:
            problems += finding.state == "problem"
            print(_lines(finding), flush=True)
    print(f"{problems} to be mended: see !!" if problems else "Everything that is installed works.")
    return 1 if problems else 0


def _parse(arguments: list[str]) -> dict[str, Any]:
    words = {"seconds": "1", "rollout": ""}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if key not in words or not equals or not value:
            raise ValueError(f"expected seconds=... or rollout=..., not {argument!r}")
        words[key] = value
    try:
        seconds = float(words["seconds"])
    except ValueError:
        seconds = 0
    if not 0 < seconds <= 3600:
        raise ValueError(f"seconds={words['seconds']} is no duration: give a number above 0 and up to 3600")
    return {**words, "seconds": seconds}


def _try_alone(name: str, seconds: float) -> int:
    from envs import task_names
    from shortcut_policy.trials import roll_out

    if name not in task_names():
        print(f"rollout={name} is no environment: choose one of {', '.join(task_names())}", file=sys.stderr)
        return 2
    print(f"{name}: {roll_out(name, seconds)}")
    return 0


def _lines(finding: Any) -> str:
    """Lay a finding out in columns; the mark is coloured on a terminal."""
    mark, colour = MARKS[finding.state]
    if sys.stdout.isatty() and not os.environ.get("NO_COLOR"):
        mark = f"\033[{colour}m{mark}\033[0m"
    indent = " " * 21
    texts = [finding.text, f"-> {finding.remedy}"] if finding.remedy else [finding.text]
    width = WIDTH - len(indent)
    first, *rest = [line for text in texts for line in textwrap.wrap(text, width, max_lines=6, break_on_hyphens=False)]
    return "\n".join([f"  {mark}  {finding.part:15}{first}", *(indent + line for line in rest)])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
