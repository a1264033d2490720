"""Fixtures shared by all tests: where real data lies, and deterministic torch."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """Return a function from a path below `SHORTCUT_DATA` to the real path; it skips the test where that is absent."""
    root = Path(os.environ.get("SHORTCUT_DATA", Path(__file__).parents[1] / "data"))

    def locate(relative: str) -> Path:
        path = root / relative
        if not path.exists():
            pytest.skip(f"real data absent: {relative} not below SHORTCUT_DATA={root}")
        return path

    return locate
