"""Workers that replay: what they say reaches the parent, and none outlives it."""

import multiprocessing
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from shortcut_policy.replay_workers import replay_demos

pytest.importorskip("robosuite")

LIFT = {"env_name": "Lift", "type": 1, "env_kwargs": {"robots": ["Panda"]}}


def test_a_users_mistake_keeps_its_kind_and_its_sentence():
    with pytest.raises(ValueError, match="'Lyft'") as caught:
        list(replay_demos(Path("nowhere.hdf5"), ["demo_1"], {"env_name": "Lyft"}, workers=3))
    assert "DemoReplayer" in caught.value.__notes__[0]
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_is_reported():
    def kill():
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        children[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ChildProcessError, match=r"replay worker 0 died .* while it replayed demo_1"):
        list(replay_demos(Path("nowhere.hdf5"), ["demo_1"], LIFT))
    killer.join()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")
def test_no_worker_outlives_a_parent_that_is_killed():
    program = (
        "from pathlib import Path; from shortcut_policy.replay_workers import replay_demos;"
        f"list(replay_demos(Path('nowhere.hdf5'), ['demo_1', 'demo_2'], {LIFT}, workers=2))"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, text=True)
    listed = Path(f"/proc/{parent.pid}/task/{parent.pid}/children")
    while len(workers := listed.read_text().split()) < 3:  # with Python's resource tracker
        assert parent.poll() is None, parent.communicate()
        time.sleep(0.01)
    time.sleep(1)  # by now they listen
    parent.kill()
    parent.communicate(timeout=60)  # returns when the last process that holds the pipe has let go of it
    deadline = time.monotonic() + 10
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_no_demos_no_workers():
    assert list(replay_demos(Path("nowhere.hdf5"), [], LIFT, workers=4)) == []
