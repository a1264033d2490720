"""Commands made of other commands: each is shown as it could be typed, and known to be done by the file it leaves."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shortcut_policy.training.interruption import TrainingInterrupted

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


def run(parts: Sequence[Part], *, whole: str, stage: str) -> None:
    """Run the commands of a stage at the same time, to their ends.

    Small networks gain little from a second core: side by side, two trainings take hardly longer than one. Ctrl-C
    reaches the commands by itself, and they may save what they have.

    Args:
        parts: the commands.
        whole: what they are parts of, for messages: "the demo".
        stage: the name of this part, for messages.

    Raises:
        TrainingInterrupted: Ctrl-C came, whatever it did to the commands, or one ended by a signal.
        SystemExit: a command failed; with its exit code.
    """
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // len(parts)))} if len(parts) > 1 else {}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPTS / part.words[0]), *part.words[1:]],
            env={**os.environ, **threads, "TQDM_POSITION": str(line)},  # each progress bar on a line of its own
        )
        for line, part in enumerate(parts)
    ]
    codes: list[int] = []
    interrupted = False
    for process in processes:
        while True:
            try:
                codes.append(process.wait())
                break
            except KeyboardInterrupt:
                interrupted = True
    code = next((code for code in codes if code), 0)
    number = -code if code < 0 else code - 128  # of the signal: the commands themselves end with 128 + number
    if interrupted or number in (signal.SIGINT, signal.SIGTERM):
        stopped_by = signal.SIGTERM if number == signal.SIGTERM else signal.SIGINT
        raise TrainingInterrupted(f"{whole} was interrupted: the same command goes on", stopped_by)
    if code < 0:
        reason = f"the stage '{stage}' was ended by signal {number}, {signal.strsignal(number)}"
        raise TrainingInterrupted(f"error: {reason}: the same command goes on with {whole}", number)
    if code:
        print(f"error: the stage '{stage}' failed (exit code {code}), see above", file=sys.stderr)
        sys.exit(code)
