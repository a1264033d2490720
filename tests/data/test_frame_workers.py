"""The processes that read frames: what they load, what they leave to their parent, and that they end with it."""

import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from shortcut_policy.worker_processes import interrupts_deferred

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def path(write_robomimic, make_demo):
    return write_robomimic({f"demo_{length}": make_demo(length, "v1.5") for length in (7, 19)})


PROGRAM = """
import multiprocessing, sys, torch
sys.path.insert(0, sys.argv[1])
from shortcut_policy.data.array_source import ArraySource
from shortcut_policy.data.robomimic_hdf5 import read_robomimic
from shortcut_policy.data.stored_images import find_images
from shortcut_policy.data.streamed_windows import StreamedWindows
from shortcut_policy.data.windows import make_windows
episodes = read_robomimic(sys.argv[2], {})
windows = make_windows(episodes.episode_ends, observation_steps=1, horizon=1)
images = find_images(sys.argv[2], {"agentview_image": ArraySource()})
streamed = StreamedWindows(episodes, images, windows, 4, workers=2)
for step in range(9):
    streamed.batch(step)
print(*(worker.pid for worker in multiprocessing.active_children()), flush=True)
input()
"""


@contextmanager
def program_that_streams(path):
    """A program without `if __name__ == "__main__"`, and the process ids of its two workers."""
    program = path.with_name("program.py")
    program.write_text(PROGRAM)
    words = [sys.executable, program, REPOSITORY, path]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            workers = [int(word) for word in process.stdout.readline().split()]
            assert len(workers) == 2
            yield process, workers
        finally:
            process.kill()


def test_workers_end_with_their_parent(path):
    """However it ends: here it has no time to tell them."""
    with program_that_streams(path) as (parent, workers):
        assert all(map(is_running, workers))
        parent.kill()
    for _ in range(100):
        if not any(map(is_running, workers)):
            return
        time.sleep(0.1)
    pytest.fail("a worker outlived its parent")


def test_a_program_may_end_without_closing(path):
    with program_that_streams(path) as (parent, workers):
        parent.communicate("\n", timeout=60)
        assert parent.returncode == 0
        assert not any(map(is_running, workers))


def test_workers_do_not_run_their_parents_script(path):
    """Which imports torch here, as the commands do."""
    with program_that_streams(path) as (parent, workers):
        assert "libtorch" in loaded_files(parent.pid)
        for worker in workers:
            assert "libhdf5" in loaded_files(worker)
            assert "libtorch" not in loaded_files(worker)


def loaded_files(pid):
    return Path(f"/proc/{pid}/maps").read_text()


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


def test_workers_do_not_load_torch():
    program = "import sys, shortcut_policy.data.frame_reader; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert run.stdout == "False\n"


def test_a_signal_that_came_while_workers_started_is_not_lost():
    came = []
    handler = signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    try:
        with interrupts_deferred():
            os.kill(os.getpid(), signal.SIGTERM)
            assert came == []
        deadline = time.monotonic() + 20
        while not came and time.monotonic() < deadline:
            time.sleep(0.01)  # the system may have told another thread, which takes its time
        assert came == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, handler)
    program = """
import os, signal
from shortcut_policy.worker_processes import interrupts_deferred
with interrupts_deferred():
    os.kill(os.getpid(), signal.SIGTERM)
    print("deferred", flush=True)
print("lost")
"""
    run = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (-signal.SIGTERM, "deferred\n")


# The training that asks for them

TINY = (
    "task=lift_image",
    "~data.observations.robot0_eef_quat",
    "~data.observations.robot0_gripper_qpos",
    "data.valid_fraction=0",
    "data.image_workers=2",
    "environment=null",
    "network=unet_tiny",
    "network.widths=[8,16]",
    "vision.encoder.options={widths: [8], keypoints: 2, feature_dim: 4}",
    "trainer.steps=100000",
    "trainer.batch_size=32",
    "trainer.accumulation=32",  # the signal comes while frames are still to be asked for
    "trainer.log_every=1",
    "trainer.progress=false",
    "device=cpu",
)


def test_sigterm_to_the_group_saves_the_run(path, tmp_path):
    """As `timeout` and `scancel` send it."""
    output = tmp_path / "run"
    words = [sys.executable, REPOSITORY / "scripts/train_policy.py", *TINY, f"data.path={path}", f"output={output}"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        while not (output / "metrics.jsonl").exists() or not (output / "metrics.jsonl").read_text():
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGTERM)
        _, errors = process.communicate(timeout=60)  # returns when no worker holds the pipe any more
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "SIGTERM came; saved after step" in errors
    assert (output / "checkpoints/last").exists()
