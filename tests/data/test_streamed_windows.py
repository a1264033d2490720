import gc
import multiprocessing
import os
import runpy
import signal
import time
from concurrent.futures import wait
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch

from shortcut_policy.data.array_source import ArraySource
from shortcut_policy.data.batches import WindowBatches
from shortcut_policy.data.frame_reader import FrameRun, read_frames
from shortcut_policy.data.robomimic_hdf5 import read_robomimic
from shortcut_policy.data.stored_images import find_images, frame_runs
from shortcut_policy.data.streamed_windows import StreamedWindows
from shortcut_policy.data.windows import make_windows
from shortcut_policy.policy_batches import PolicyBatches
from shortcut_policy.training.metrics import timed_batch

REPOSITORY = Path(__file__).parents[2]
LOW_DIM = {"robot0_eef_pos": ArraySource()}
OBSERVATIONS = {**LOW_DIM, "front": ArraySource("agentview_image"), "robot0_eye_in_hand_image": ArraySource()}


@pytest.fixture
def path(write_robomimic, make_demo):
    demos = {f"demo_{number}": make_demo(length, "v1.5", number) for number, length in enumerate((7, 4, 1, 9, 5))}
    return write_robomimic(demos, masks={"some": ["demo_3", "demo_1"]}, chunks=True, compression="gzip")


def both(path, batch_size=4, seed=0, workers=0, choose=lambda episodes: episodes):
    """The same windows from RAM and from the file."""
    resident, low_dim = (choose(read_robomimic(path, observations)) for observations in (OBSERVATIONS, LOW_DIM))
    windows = make_windows(resident.episode_ends, observation_steps=3, horizon=4)
    images = find_images(path, OBSERVATIONS)
    return (
        WindowBatches(resident, windows, batch_size, seed),
        StreamedWindows(low_dim, images, windows, batch_size, seed, workers=workers),
    )


def check_equal(found, expected):
    assert found.observation.keys() == expected.observation.keys()
    for key, values in expected.observation.items():
        assert found.observation[key].dtype == values.dtype
        assert torch.equal(found.observation[key], values)
    assert torch.equal(found.action, expected.action)
    assert torch.equal(found.action_is_pad, expected.action_is_pad)


def test_streamed_batches_are_those_from_ram(path):
    resident, streamed = both(path, batch_size=8, seed=3, workers=2)
    with streamed:
        assert (streamed.batch_size, streamed.num_windows) == (8, 26)
        for step in range(7):  # over the end of two epochs
            check_equal(streamed.batch(step), resident.batch(step))
        for step in (40, 3, 3, 4, 41):  # a run may begin anywhere, and jump
            check_equal(streamed.batch(step), resident.batch(step))
        for step in (5, 6, 7):  # micro-batches
            for rows in (slice(0, 3), slice(3, 8)):
                check_equal(streamed.batch(step, rows), resident.batch(step, rows))
        for limit in (None, 11, 99):
            for found, expected in zip(streamed.sequential(limit), resident.sequential(limit), strict=True):
                check_equal(found, expected)
        index = torch.tensor([25, 0, 0, 7])
        check_equal(streamed.windows(index), resident.windows(index))
        assert len(multiprocessing.active_children()) == 2
        assert len(streamed._pending) <= 3 * 4, "jumps leave nothing behind"
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    "choose",
    [lambda episodes: episodes.split(0.4, seed=1)[1], lambda episodes: episodes.select([4, 0, 4])],
    ids=["split", "select"],
)
def test_streams_some_of_the_episodes_in_this_process(path, choose):
    resident, streamed = both(path, choose=choose)
    with streamed:
        for step in range(9):
            check_equal(streamed.batch(step), resident.batch(step))
        for found, expected in zip(streamed.sequential(), resident.sequential(), strict=True):
            check_equal(found, expected)


def test_workers_end_with_the_object(path):
    _, streamed = both(path, workers=1)
    streamed.batch(0)
    assert len(multiprocessing.active_children()) == 1
    del streamed
    gc.collect()
    assert multiprocessing.active_children() == []


def test_a_worker_that_dies_is_reported(path):
    _, streamed = both(path, workers=1)
    with streamed:
        streamed.batch(0)
        (worker,) = multiprocessing.active_children()
        worker.kill()
        worker.join()
        with pytest.raises(RuntimeError, match=r"a process that reads .*demos\.hdf5 died \(signal 9, Killed\): is "):
            list(streamed.sequential())


def test_the_others_end_when_one_died(path):
    _, streamed = both(path, workers=3)
    streamed.batch(0)
    multiprocessing.active_children()[0].kill()
    # every batch that was asked for, in turn: the dead one may have had one that lies ahead
    with pytest.raises(RuntimeError, match="died"):
        list(map(streamed.batch, range(1, 20)))
    streamed.close()
    deadline = time.monotonic() + 20
    while multiprocessing.active_children() and time.monotonic() < deadline:
        time.sleep(0.05)  # a thread may be about to note how the dead one ended
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_to_the_group_leave_workers_alone_from_their_start_on(path, number):
    resident, streamed = both(path, workers=2)
    with streamed:
        for step in range(9):
            workers = multiprocessing.active_children()
            for worker in workers:
                os.kill(worker.pid, number)
            check_equal(streamed.batch(step), resident.batch(step))
        assert len(workers) == 2


# What counts as waiting for data


def slow(function, seconds):
    def slowed(*arguments):
        time.sleep(seconds)
        return function(*arguments)

    return slowed


def test_reading_is_waited_for_and_nothing_else(path, monkeypatch):
    """Neither what is done with the low-dimensional data, nor crops, colours and normalisation."""
    resident, streamed = both(path)
    monkeypatch.setattr("shortcut_policy.data.streamed_windows.read_frames", slow(read_frames, 0.2))
    monkeypatch.setattr(WindowBatches, "windows", slow(WindowBatches.windows, 1.0))
    policy = SimpleNamespace(
        device="cpu", draw_views=lambda *_: None, draw_prefix=lambda *_: None, prepare=slow(lambda *_: _, 1.0)
    )
    with streamed:
        _, seconds = timed_batch(PolicyBatches(policy, streamed), 0, slice(None))
        assert 0.2 <= seconds < 1
        assert streamed.waited_seconds == seconds
    assert timed_batch(PolicyBatches(policy, resident), 0, slice(None))[1] == 0


def test_what_was_read_ahead_is_not_waited_for(path):
    _, streamed = both(path, workers=1)
    with streamed:
        streamed.batch(0)
        started = streamed.waited_seconds
        assert started > 0.02, "the worker had to start"
        wait([request.images for request in streamed._pending.values()])
        streamed.batch(1)
        assert streamed.waited_seconds - started < started / 2


def test_copies_to_a_gpu_do_not_wait_for_it(path, monkeypatch):
    """Copies from memory that is not pinned would wait for the kernels of the step before; here they are pretended."""
    pinned, copied = [], []

    def pin(values):
        pinned.append(values.clone())
        return pinned[-1]

    def to(values, device, non_blocking=False):
        if torch.device(device).type == "cuda":
            copied.append((values, non_blocking))
        return values

    resident, streamed = both(path)
    with streamed:
        streamed._device = torch.device("cuda")
        monkeypatch.setattr(torch.Tensor, "pin_memory", pin)
        monkeypatch.setattr(torch.Tensor, "to", to)
        check_equal(streamed.batch(0), resident.batch(0))
    assert len(copied) == 3, "the frames of two cameras, and which of them each window shows"
    assert all(non_blocking and any(values is known for known in pinned) for values, non_blocking in copied)


# What is read


def test_frames_are_cut_into_runs_within_demos(path):
    episodes = read_robomimic(path, {})  # ends 7, 11, 12, 21, 26
    rows = np.array([0, 1, 3, 6, 7, 8, 11, 12, 25])
    assert frame_runs(rows, episodes) == (
        FrameRun("demo_0", 0, 2),
        FrameRun("demo_0", 3, 4),
        FrameRun("demo_0", 6, 7),
        FrameRun("demo_1", 0, 2),
        FrameRun("demo_2", 0, 1),
        FrameRun("demo_3", 0, 1),
        FrameRun("demo_4", 4, 5),
    )
    images = read_robomimic(path, OBSERVATIONS).observations["front"]
    with h5py.File(path) as file:
        found = read_frames(file, {"front": "obs/agentview_image"}, frame_runs(rows, episodes))
    assert np.array_equal(found["front"], images[rows])
    assert frame_runs(rows[:0], episodes) == ()


def test_every_frame_of_a_batch_is_read_once(path, monkeypatch):
    runs = []
    monkeypatch.setattr(
        "shortcut_policy.data.streamed_windows.read_frames",
        lambda file, arrays, wanted: runs.append(wanted) or read_frames(file, arrays, wanted),
    )
    _, streamed = both(path)
    with streamed:
        streamed.windows(torch.tensor([0]))  # its first observation stands there three times
        streamed.windows(torch.tensor([5, 3, 4, 3]))
    assert runs == [(FrameRun("demo_0", 0, 1),), (FrameRun("demo_0", 1, 6),)]


def test_images_are_found_without_being_read(path):
    images = find_images(path, OBSERVATIONS, filter_key="some")
    assert images.path == path
    assert images.arrays == {
        "front": "obs/agentview_image",
        "robot0_eye_in_hand_image": "obs/robot0_eye_in_hand_image",
    }
    assert images.shapes == {"front": (6, 5, 3), "robot0_eye_in_hand_image": (4, 4, 3)}
    assert images.lengths == {"demo_1": 4, "demo_3": 9}
    assert find_images(path, LOW_DIM).arrays == {}


def test_refuses_what_does_not_agree(path):
    windows = make_windows([7], observation_steps=1, horizon=1)
    episodes = read_robomimic(path, LOW_DIM)
    with pytest.raises(ValueError, match="workers must not be negative, got -1"):
        both(path, workers=-1)
    with pytest.raises(ValueError, match=r"demo_0 has 7 steps in .*, but no frames in .*demos\.hdf5"):
        StreamedWindows(episodes, find_images(path, OBSERVATIONS, filter_key="some"), windows, 4)
    with h5py.File(path, "a") as file:
        for key in ("agentview_image", "robot0_eye_in_hand_image", "robot0_eef_pos"):
            values = file[f"data/demo_0/obs/{key}"][:-1]
            del file[f"data/demo_0/obs/{key}"]
            file[f"data/demo_0/obs/{key}"] = values
    with pytest.raises(ValueError, match=r"demo_0 has 7 steps in .*, but 6 frames"):
        StreamedWindows(episodes, find_images(path, OBSERVATIONS), windows, 4)
    with pytest.raises(ValueError, match="take neither columns nor a transform"):
        find_images(path, {"agentview_image": ArraySource(columns=(0, 1))})


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_is_one_sentence(write_robomimic, make_demo, workers):
    path = write_robomimic({"demo_0": make_demo(4, "v1.5")}, chunks=True, fletcher32=True)
    episodes, images = read_robomimic(path, LOW_DIM), find_images(path, {"agentview_image": ArraySource()})
    windows = make_windows(episodes.episode_ends, observation_steps=1, horizon=1)
    with h5py.File(path) as file:
        where = file["data/demo_0/obs/agentview_image"].id.get_chunk_info(0).byte_offset
    content = bytearray(path.read_bytes())
    content[where : where + 20] = bytes(20)
    path.write_bytes(content)
    with (
        StreamedWindows(episodes, images, windows, 4, workers=workers) as streamed,
        pytest.raises(ValueError, match=r"images of .*demos\.hdf5 cannot be read: copy or download it again"),
    ):
        streamed.batch(0)


def test_a_file_that_is_gone_is_one_sentence(path):
    _, streamed = both(path, workers=1)
    path.unlink()
    with (
        streamed,
        pytest.raises(ValueError, match=r"images of .*demos\.hdf5 cannot be read: copy or download it again"),
    ):
        streamed.batch(0)


def test_benchmark(path, capsys):
    main = runpy.run_path(str(REPOSITORY / "scripts/benchmark_data_loading.py"))["main"]
    words = ["observations=[agentview_image,object]", "workers=[0,1]", "batches=3", "batch_size=4"]
    assert main([f"path={path}", *words]) == 0
    assert [line[:19].rstrip() for line in capsys.readouterr().out.splitlines()[1:]] == [
        "from RAM",
        "streamed,  0 worker",
        "streamed,  1 worker",
    ]
    for word, message in {
        "batches=0": "batches must be a positive whole number, not '0'",
        "workers=[x]": "workers must be whole numbers, such as [0,1,2], not '[x]'",
        "observations=object": "none of object is an image: only images are streamed",
        "steps=3": "expected path=..., observations=..., batch_size=..., ",
    }.items():
        assert main([f"path={path}", "observations=agentview_image", word]) == 2
        assert capsys.readouterr().err.startswith(f"error: {message}")
