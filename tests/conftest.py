"""Fixtures shared by all tests, and the rule for skips: where real data is at hand, none is expected."""

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from envs.rendering import choose_backend


def pytest_configure() -> None:
    """Let Ctrl-C mean what it means at a terminal: shells start background jobs deaf to it, and we test it."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Return a function from a path below `SHORTCUT_DATA` to the real path; it skips the test where that is absent."""
    root = Path(os.environ.get("SHORTCUT_DATA", Path(__file__).parents[1] / "data"))

    def locate(relative: str) -> Path:
        path = root / relative
        if not path.exists():
            pytest.skip(f"real data absent: {relative} not below SHORTCUT_DATA={root}")
        return path

    return locate


@pytest.fixture(scope="session")
def gl_backend() -> str:
    """The GL backend that draws here; tests that ask for it are skipped where none does, and say what is missing."""
    try:
        return choose_backend()
    except (ImportError, ValueError) as error:
        pytest.skip(str(error))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """The same for a file that is skipped as a whole."""
    report = yield
    if report.outcome == "skipped" and os.environ.get("SHORTCUT_FORBID_SKIPS"):
        report.outcome, report.longrepr = "failed", f"a skip that was not expected: {report.longrepr}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """With SHORTCUT_FORBID_SKIPS set, a skipped test fails: so a missing package or file cannot hide."""
    report = yield
    if report.skipped and os.environ.get("SHORTCUT_FORBID_SKIPS") and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"a skip that was not expected: {call.excinfo.value}"
    return report
