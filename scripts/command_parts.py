"""Commands made of other commands: each is shown as it could be typed, and known to be done by the file it leaves."""

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parent


@dataclass(frozen=True)
class Part:
    """A command to be run: its words, and the file that is there when it is complete."""

    words: tuple[str, ...]
    product: Path

    @property
    def command(self) -> str:
        """As it could be typed."""
        return f"python scripts/{shlex.join(self.words)}"


def run(parts: Sequence[Part]) -> int:
    """Run commands at the same time, to their ends: the first exit code that is not 0, or 0.

    Small networks gain little from a second core: side by side, two trainings take hardly longer than one. Ctrl-C
    reaches the commands by itself, and they may save what they have.
    """
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // len(parts)))} if len(parts) > 1 else {}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPTS / part.words[0]), *part.words[1:]],
            env={**os.environ, **threads, "TQDM_POSITION": str(line)},  # each progress bar on a line of its own
        )
        for line, part in enumerate(parts)
    ]
    codes = []
    for process in processes:
        while True:
            try:
                codes.append(process.wait())
                break
            except KeyboardInterrupt:
                continue
    return next((code for code in codes if code), 0)
