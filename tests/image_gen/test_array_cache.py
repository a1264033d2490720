"""Arrays on disk when several processes want them, and when one of them dies."""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from image_gen.array_cache import cached_rows

PROCESS = """
import sys, time
from pathlib import Path

import numpy as np

from image_gen.array_cache import cached_rows

folder, name, waits = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "waits"


def compute(start, stop):
    while waits and start == 4 and not (folder / "go").exists():
        (folder / "waits").touch()
        time.sleep(0.01)
    with (folder / "log").open("a") as log:
        print(name, start, file=log)
    return np.arange(start, stop, dtype=np.float32)[:, None] + 1


array = cached_rows(folder, {"a": 1}, (10, 1), "float32", compute, block=4, title="numbers")
print(int(array.sum()), flush=True)
"""


def start(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, str(folder), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )


@pytest.mark.parametrize("killed", [False, True])
def test_a_second_process_waits_for_the_first_and_computes_only_what_is_missing(tmp_path, killed):
    with start(tmp_path, "first", "waits") as first:
        try:
            deadline = time.monotonic() + 60
            while not (tmp_path / "waits").exists():
                assert first.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            with start(tmp_path, "second", "goes") as second:
                note = second.stdout.readline()
                assert "another process computes numbers_" in note
                assert (tmp_path / "log").read_text().splitlines() == ["first 0"]
                if killed:
                    first.kill()
                else:
                    (tmp_path / "go").touch()
                assert second.communicate(timeout=60)[0].strip() == "55"
        finally:
            first.kill()
    by = "second" if killed else "first"
    assert (tmp_path / "log").read_text().splitlines() == ["first 0", f"{by} 4", f"{by} 8"]
    assert not list(tmp_path.glob("*.tmp"))


def test_rows_of_an_array_that_was_deleted_do_not_count_as_finished(tmp_path):
    def compute(start, stop, fail=False):
        if fail:
            raise KeyboardInterrupt
        return np.ones((stop - start, 1), np.float32)

    def rows(fail=False):
        return cached_rows(
            tmp_path, {}, (4, 1), "float32", lambda a, b: compute(a, b, fail), block=2, title="ones", progress=False
        )

    rows()
    next(tmp_path.glob("*.npy")).unlink()
    with pytest.raises(KeyboardInterrupt):
        rows(fail=True)
    assert rows().sum() == 4


def test_finished_arrays_are_read_from_a_folder_that_cannot_be_locked(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def unsupported(*_):
        raise OSError(38, "Function not implemented")

    def rows():
        ones = np.ones((2, 1), np.float32)
        return cached_rows(tmp_path, {}, (2, 1), "float32", lambda *_: ones, block=2, title="ones", progress=False)

    with monkeypatch.context() as patched:
        patched.setattr(fcntl, "flock", unsupported)
        with pytest.raises(OSError, match=r"ones_.*\.lock cannot be locked \(Function not implemented\)"):
            rows()
    rows()
    monkeypatch.setattr(fcntl, "flock", unsupported)
    assert rows().sum() == 2
