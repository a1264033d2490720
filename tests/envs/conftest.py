"""Fixtures of the tests that draw pictures with MuJoCo."""

import pytest

from envs.rendering import choose_backend


@pytest.fixture(scope="session")
def gl_backend() -> str:
    """The GL backend that draws here; tests that ask for it are skipped where none does, and say what is missing."""
    try:
        return choose_backend()
    except (ImportError, ValueError) as error:
        pytest.skip(str(error))
