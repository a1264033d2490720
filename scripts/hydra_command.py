"""How the commands begin and end: Hydra composes their values, and a user's mistake is one sentence, exit code 2."""

import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from shortcut_policy.training.interruption import TrainingInterrupted
from shortcut_policy.training.loop import TrainingDiverged

USER_ERRORS = (ValueError, OSError, ImportError)


def command(config_name: str) -> Callable[[Callable[[dict[str, Any]], None]], Callable[[], None]]:
    """Make a main function of one that takes the composed values of `configs/{config_name}.yaml`.

    Exit codes: 2 for wrong input, 1 for a training that diverged, 128 + n for signal n, as shells do.
    SHORTCUT_TRACEBACK=1 shows the traceback too.
    """

    def decorate(function: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        @hydra.main(version_base=None, config_path="../configs", config_name=config_name)
        @functools.wraps(function)
        def composed(config: DictConfig) -> None:
            # here, inside the job: an exception that passed through Hydra would be reported by it as well
            try:
                function(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
            except USER_ERRORS as error:
                _leave(2, f"error: {error}")
            except OmegaConfBaseException as error:  # a value that must be given is not
                _leave(2, "error: " + _one_sentence(str(error)))
            except TrainingDiverged as error:
                _leave(1, f"error: {error}")
            except TrainingInterrupted as error:
                _leave(128 + error.signal_number, str(error))

        @functools.wraps(function)
        def main() -> None:
            os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # let Hydra's own exceptions through to here
            if {"--multirun", "-m"} & set(
                sys.argv
            ):  # a launcher's jobs unpickle the function in processes of their own
                found = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
                os.environ["PYTHONPATH"] = os.pathsep.join(found)
            try:
                composed()
            except (HydraException, OmegaConfBaseException, YAMLError) as error:
                _leave(2, "error: " + _one_sentence(str(error)))

        return main

    return decorate


def _leave(code: int, message: str) -> None:
    if os.environ.get("SHORTCUT_TRACEBACK"):
        sys.excepthook(*sys.exc_info())
    print(message, file=sys.stderr)
    sys.exit(code)


def _one_sentence(message: str) -> str:
    """Hydra's message without the search path, its list of choices on the same line."""
    useful = message.split("Config search path")[0].split("full_key:")[0]
    lines = [line.strip() for line in useful.splitlines() if line.strip()]
    choices = [i for i, line in enumerate(lines) if line.startswith("Available options")]
    if choices:
        first = choices[0]
        return f"{' '.join(lines[:first])}: known are {', '.join(lines[first + 1 :])}"
    return " ".join(lines)
