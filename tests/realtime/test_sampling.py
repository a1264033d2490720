"""Sampling in a thread and in a process, and a loop on the real clock: what holds however busy the machine is."""

import sys
import threading

import cloudpickle
import numpy as np
import pytest
import torch
from small_policy import small_policy

from shortcut_policy.config import Component
from shortcut_policy.policy import Policy
from shortcut_policy.policy_config import PolicyConfig
from shortcut_policy.realtime.clock import MonotonicClock
from shortcut_policy.realtime.control_loop import ControlLoop, LoopConfig
from shortcut_policy.realtime.sampling import ThreadSampler, chunk_function
from shortcut_policy.realtime.sampling_process import SamplingProcess
from shortcut_policy.vision_config import VisionConfig

# The process cannot import this module.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def ramp(history):
    return history["count"][-1] + np.arange(20.0)[:, None]


class Counter:
    """A robot that observes how often it was told to act."""

    def __init__(self, each=None):
        self.actions, self.each = [], each

    def observe(self):
        return {"count": np.array([len(self.actions)], np.float64)}

    def act(self, action):
        self.actions.append(float(action[0]))
        if self.each is not None:
            self.each(len(self.actions))


def test_a_policy_becomes_a_function_of_one_robot():
    policy = small_policy()
    history = {"position": np.full((2, 2), 300.0), "angle": np.ones((2, 1)), "unused": np.zeros((2, 3))}
    chunk = chunk_function(policy, 2, generator=torch.Generator().manual_seed(3))(history)
    batch = {key: torch.from_numpy(values).float()[None] for key, values in history.items()}
    expected = policy.sample(batch, 2, generator=torch.Generator().manual_seed(3))[0]
    assert np.array_equal(chunk, expected.numpy())
    del history["angle"]
    with pytest.raises(ValueError, match="observation 'angle' is missing"):
        chunk_function(policy)(history)


def test_a_policy_that_sees_gets_its_images_as_the_camera_gave_them():
    camera = np.random.default_rng(0).integers(256, size=(2, 8, 8, 3), dtype=np.uint8)  # (To, H, W, C)
    options = {"widths": [8], "keypoints": 2, "feature_dim": 4}
    policy = Policy(
        PolicyConfig(
            observation_dims={"position": 2},
            image_shapes={"camera": (8, 8, 3)},
            vision=VisionConfig(Component("small_cnn", options)),
            action_dim=2,
            network=Component("unet1d", {"widths": [8, 16], "step_embedding_dim": 8}),
        )
    )
    seen = []
    policy.sample = lambda rows, steps, generator: seen.append(rows) or Policy.sample(policy, rows, steps)
    assert chunk_function(policy)({"position": np.zeros((2, 2)), "camera": camera}).shape == (16, 2)
    assert np.array_equal(seen[0]["camera"].numpy(), camera[None])
    assert seen[0]["camera"].dtype == torch.uint8


def test_the_thread_answers_beside_and_always_the_same_one():
    begun, go, threads = threading.Event(), threading.Event(), set()

    def sample(history):
        threads.add(threading.current_thread())
        begun.set()
        go.wait(60)
        return ramp(history)

    sampler = ThreadSampler(sample, MonotonicClock())
    sampler.request(7, {"count": np.ones((2, 1))})
    assert begun.wait(60)
    assert sampler.poll() is None
    go.set()
    answer = sampler.wait()
    assert (answer.tick, answer.chunk[0, 0], answer.error) == (7, 1, None)
    assert answer.latency > 0
    assert sampler.poll() is None
    sampler.request(8, {"count": np.ones((2, 1))})
    assert sampler.wait().tick == 8
    sampler.close()
    (thread,) = threads
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_an_error_in_the_thread_is_the_answer_and_the_thread_goes_on():
    calls = []

    def sample(history):
        calls.append(1)
        return 1 / (len(calls) - 1) * ramp(history)

    sampler = ThreadSampler(sample, MonotonicClock())
    sampler.request(0, {"count": np.ones((2, 1))})
    assert isinstance(sampler.wait().error, ZeroDivisionError)
    sampler.request(1, {"count": np.ones((2, 1))})
    assert sampler.wait().error is None
    sampler.close()


def test_a_thread_that_hangs_is_left_behind():
    go = threading.Event()
    sampler = ThreadSampler(lambda history: go.wait(60), MonotonicClock(), grace=0.01)
    sampler.request(0, {})
    sampler.close()
    go.set()
    assert sampler.wait().tick == 0


def test_a_loop_on_the_real_clock_keeps_it_and_follows_the_newest_chunk():
    stop = threading.Event()
    robot = Counter(lambda n: stop.set() if n >= 20 and loop.report().chunks >= 3 else None)
    loop = ControlLoop(robot, ramp, LoopConfig(rate_hz=100, action_steps=4))
    report = loop.run(stop=stop)
    assert report.ended == "stopped"
    assert report.ticks >= 20
    # actions are never early; how late they are is up to the machine
    assert report.seconds >= (report.ticks - 1) / 100 - 1e-4
    assert 0 <= report.jitter_ms.p50 <= report.jitter_ms.p99 <= report.jitter_ms.max
    assert 0 < report.latency_ms.p50 <= report.latency_ms.max
    assert robot.actions[0] == 0
    if not report.skipped_ticks and not report.safe_actions:
        expected = list(range(report.ticks))
        assert robot.actions[:-1] == expected, "each chunk of such a policy goes on where the last one was"


def test_a_loop_runs_in_another_thread_where_no_handler_of_signals_can_be_set():
    reports = []
    stop = threading.Event()
    loop = ControlLoop(Counter(lambda n: stop.set()), ramp, LoopConfig(rate_hz=1000, action_steps=4))
    thread = threading.Thread(target=lambda: reports.append(loop.run(stop=stop)))
    thread.start()
    thread.join(60)
    assert reports[0].ended == "stopped"


def test_a_process_samples_for_the_loop():
    def make():
        return lambda history: ramp(history)

    with SamplingProcess(make) as sample:
        assert sample({"count": np.full((2, 1), 5.0)})[:3, 0].tolist() == [5, 6, 7]
        robot = Counter()
        report = ControlLoop(robot, sample, LoopConfig(rate_hz=100, action_steps=4)).run(20)
    assert report.chunks >= 1
    assert robot.actions[0] == 0
    assert sample._worker.process.exitcode is not None


def test_what_goes_wrong_in_the_process_ends_the_loop():
    def make():
        import os

        def sample(history):
            if history["count"][-1] >= 3:
                os._exit(3)
            return history["count"][-1] + np.zeros((20, 1))

        return sample

    robot = Counter()
    with SamplingProcess(make) as sample, pytest.raises(RuntimeError, match=r"sampling process died \(exit code 3\)"):
        ControlLoop(robot, sample, LoopConfig(rate_hz=100, action_steps=4)).run()
    assert len(robot.actions) >= 5
    assert robot.actions[-1] == robot.actions[-2]


def test_a_mistake_in_making_the_function_is_told():
    def make():
        raise FileNotFoundError("there is no checkpoint nowhere")

    with pytest.raises(FileNotFoundError, match="no checkpoint nowhere"):
        SamplingProcess(make)
