"""How resumable commands, and commands made of others, end upon Ctrl-C, whatever becomes of KeyboardInterrupt."""

import os
import runpy
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from shortcut_policy.training.interruption import TrainingInterrupted

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def resumable(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    before = signal.getsignal(signal.SIGINT)
    yield runpy.run_path(str(SCRIPTS / "resumable_command.py"))["resumable"]
    assert signal.getsignal(signal.SIGINT) is before


def ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def interrupted_within_h5py(resumable):
    with resumable("data/lift.hdf5"):
        try:
            ctrl_c()
        except KeyboardInterrupt:
            raise TypeError("Operation not defined for data type class") from None


def interrupted_within_a_callback(resumable):
    with resumable("data/lift.hdf5") as raise_lost:
        raise_lost()  # nothing was
        with suppress(KeyboardInterrupt):
            ctrl_c()
        raise_lost()


@pytest.mark.parametrize("interrupted", [interrupted_within_h5py, interrupted_within_a_callback])
def test_an_interrupt_that_got_lost_stops_the_command(resumable, interrupted):
    with pytest.raises(TrainingInterrupted, match=r"stopped: the same command goes on with data/lift\.hdf5") as stop:
        interrupted(resumable)
    assert stop.value.signal_number == signal.SIGINT


def test_without_an_interrupt_an_error_is_an_error(resumable):
    with pytest.raises(TypeError, match="of our own"), resumable("data/lift.hdf5"):
        raise TypeError("of our own")


def test_a_command_that_is_deaf_to_ctrl_c_stays_so(resumable, monkeypatch):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with resumable("data/lift.hdf5") as raise_lost:
            ctrl_c()
            raise_lost()
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.fixture
def command_parts(monkeypatch, tmp_path):
    """The parts of commands; `child.py` sends Ctrl-C to its parent alone and ends with the code that it is given."""
    text = "import os, signal, sys\nos.kill(os.getppid(), signal.SIGINT)\nsys.exit(int(sys.argv[1]))\n"
    (tmp_path / "child.py").write_text(text)
    (tmp_path / "failing.py").write_text("import sys\nsys.exit(3)\n")
    (tmp_path / "killed.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    names = runpy.run_path(str(SCRIPTS / "command_parts.py"))
    monkeypatch.setitem(names["run"].__globals__, "SCRIPTS", tmp_path)
    return names["Part"], names["run"]


@pytest.mark.parametrize("code", [0, 130, 1])
def test_ctrl_c_stops_the_whole_whatever_it_does_to_a_part(command_parts, tmp_path, code):
    part, run = command_parts
    with pytest.raises(TrainingInterrupted, match="the demo was interrupted: the same command goes on") as stop:
        run([part(("child.py", str(code)), tmp_path)], whole="the demo", stage="train")
    assert stop.value.signal_number == signal.SIGINT


def test_a_part_that_is_killed_goes_on_with_the_same_command(command_parts, tmp_path):
    part, run = command_parts
    with pytest.raises(TrainingInterrupted, match="the stage 'train' was ended by signal 9, Killed: the same") as stop:
        run([part(("killed.py",), tmp_path)], whole="the demo", stage="train")
    assert stop.value.signal_number == signal.SIGKILL


def test_a_part_that_fails_ends_the_whole_with_its_code(command_parts, tmp_path, capfd):
    part, run = command_parts
    with pytest.raises(SystemExit) as end:
        run([part(("failing.py",), tmp_path)], whole="the demo", stage="train")
    assert end.value.code == 3
    assert capfd.readouterr().err == "error: the stage 'train' failed (exit code 3), see above\n"
