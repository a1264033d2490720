import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path

import cloudpickle
import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from envs.hosting import EnvironmentHost
from shortcut_policy import rollout_workers
from shortcut_policy.rollout_workers import RolloutWorkers
from shortcut_policy.worker_processes import Worker

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Obedient(gymnasium.Env):
    """The first entry of an action says what happens, a name of `ORDERS`; the second one adds to the observation."""

    ORDERS = ("nothing", "kill", "exit", "leave", "raise", "refuse", "sleep", "interrupt", "start a process")

    def __init__(self, folder=None, meet=0):
        self.folder = folder
        self.render_mode = "rgb_array"
        self.observation_space = Dict(
            state=Box(-np.inf, np.inf, (2,), np.float64), image=Box(0, 255, (90, 90, 3), np.uint8)
        )
        self.action_space = Box(-np.inf, np.inf, (2,), np.float64)
        self.meet = meet
        self.rendezvous("build")

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.sum = float(seed)
        self.rendezvous("reset")
        return self.observe(), {}

    def step(self, action):
        self.sum += action[1]
        match self.ORDERS[int(action[0])]:
            case "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            case "exit":
                os._exit(3)
            case "leave":
                sys.exit(4)
            case "raise":
                self.fail_for_a_reason()
            case "refuse":
                raise FileNotFoundError("model.xml is missing")
            case "sleep":
                time.sleep(60)
            case "interrupt":
                for number in (signal.SIGINT, signal.SIGTERM):
                    os.kill(os.getpid(), number)
                self.sum = 1000.0
            case "start a process":
                child = subprocess.Popen(["sleep", "60"])
                child.terminate()
                self.sum = 1000.0 * (child.wait(30) == -signal.SIGTERM)
        return self.observe(), self.sum, self.sum > 100, False, {"is_success": self.sum > 50}

    def fail_for_a_reason(self):
        raise ArithmeticError("the simulation diverged")

    def observe(self):
        return {"state": np.array((self.sum, os.getpid())), "image": self.np_random.integers(0, 255, (90, 90, 3))}

    def render(self):
        return np.full((3, 3, 3), int(self.sum), np.uint8)

    def close(self):
        if self.folder:
            (self.folder / f"closed {os.getpid()}").touch()

    def rendezvous(self, name):
        """Wait until `meet` processes are here: only those that work at the same time get through."""
        deadline = time.monotonic() + 30
        if self.meet:
            (self.folder / f"{name} {os.getpid()}").touch()
            while len(list(self.folder.glob(f"{name} *"))) < self.meet:
                assert time.monotonic() < deadline, f"nobody else came to {name}"
                time.sleep(0.01)


@pytest.fixture(autouse=True)
def nobody_left():
    yield
    assert multiprocessing.active_children() == []


def begin(host, rows, film=False):
    return host.reset(rows, [int(row) for row in rows], [film] * len(rows))


def order(host, rows, **orders):
    """Step the rows, with an order for the row of that number: `order(host, [0, 1], r1="kill")`."""
    names = [orders.get(f"r{row}", "nothing") for row in rows]
    return host.step(rows, np.column_stack([[Obedient.ORDERS.index(name) for name in names], rows + 1.0]))


def let_sleep(workers):
    begin(workers, np.arange(1))
    workers._workers[0].connection.send(("step", [0], np.array([(Obedient.ORDERS.index("sleep"), 0)])))


def assert_same(outcome, expected):
    """All but the process id."""
    for name in ("reward", "terminated", "success", "lost"):
        np.testing.assert_array_equal(outcome.records[name], expected.records[name])
    observed, right = outcome.records["observation"], expected.records["observation"]
    np.testing.assert_array_equal(observed["image"], right["image"])
    np.testing.assert_array_equal(observed["state"][:, 0], right["state"][:, 0])
    assert outcome.frames.keys() == expected.frames.keys()
    for i, image in expected.frames.items():
        np.testing.assert_array_equal(outcome.frames[i], image)


def processes(outcome):
    return outcome.records["observation"]["state"][:, 1].tolist()


def test_workers_answer_like_one_host():
    with RolloutWorkers(Obedient, 5, 2) as workers, EnvironmentHost(Obedient, 5) as host:
        assert workers.spec == host.spec
        every = np.arange(5)
        for film, rows in ((False, every), (True, every), (False, np.array([3])), (True, np.array([1, 4]))):
            assert_same(begin(workers, rows, film), begin(host, rows, film))
            assert_same(order(workers, rows), order(host, rows))
            assert_same(order(workers, rows[::-1]), order(host, rows[::-1]))


def test_rows_are_dealt_out_to_the_workers():
    with RolloutWorkers(Obedient, 5, 2) as workers:
        first, second, *others = processes(begin(workers, np.arange(5)))
    assert os.getpid() not in (first, second)
    assert first != second
    assert others == [first, second, first]


def test_workers_build_and_reset_at_the_same_time(tmp_path):
    with RolloutWorkers(partial(Obedient, tmp_path, meet=2), 2, 2) as workers:
        assert not begin(workers, np.arange(2)).records["lost"].any()


@pytest.mark.parametrize(
    ("how", "reported"),
    [("kill", "signal 9, Killed"), ("exit", "exit code 3"), ("leave", "exit code 4")],
)
def test_a_death_loses_the_rows_of_one_worker_which_is_replaced(how, reported):
    rows = np.arange(3)
    with RolloutWorkers(Obedient, 4, 2) as workers:
        workers.reset(rows, [70, 71, 72], [False] * 3)
        before = processes(order(workers, rows))
        with pytest.warns(RuntimeWarning) as warned:
            outcome = order(workers, rows, r2=how)
        assert [str(warning.message) for warning in warned] == [
            f"rollout worker 0 died ({reported}) while it ran seed 70, 72: a new one replaces it"
        ]
        assert outcome.records["lost"].tolist() == [True, False, True]
        assert outcome.records["reward"][1] == 71 + 2 + 2
        after = processes(begin(workers, rows))
        assert after[1] == before[1]
        assert after[0] == after[2] != before[0]
        assert order(workers, rows).records["reward"].tolist() == [1, 3, 5]


def test_a_worker_that_dies_unasked_is_noticed_at_the_next_request():
    with RolloutWorkers(Obedient, 2, 2) as workers:
        victim = int(processes(begin(workers, np.arange(2)))[1])
        os.kill(victim, signal.SIGKILL)
        while any(process.pid == victim for process in multiprocessing.active_children()):
            time.sleep(0.01)
        with pytest.warns(RuntimeWarning, match="worker 1 died"):
            assert order(workers, np.arange(2)).records["lost"].tolist() == [False, True]
        assert not begin(workers, np.arange(2)).records["lost"].any()


def test_an_exception_comes_with_the_traceback_of_its_worker():
    with RolloutWorkers(Obedient, 2, 2) as workers:
        begin(workers, np.arange(2))
        with pytest.raises(RuntimeError, match="rollout worker 1 failed:") as caught:
            order(workers, np.arange(2), r1="raise")
    assert "in fail_for_a_reason" in str(caught.value)
    assert "ArithmeticError: the simulation diverged" in str(caught.value)


def test_a_users_mistake_keeps_its_type_and_sentence():
    with RolloutWorkers(Obedient, 1, 1) as workers:
        begin(workers, np.arange(1))
        with pytest.raises(FileNotFoundError) as caught:
            order(workers, np.arange(1), r0="refuse")
    assert str(caught.value) == "model.xml is missing"
    assert "raised in rollout worker 0:\nTraceback" in caught.value.__notes__[0]


def refuse_to_build():
    raise ImportError("install the simulator")


def die_while_building():
    os._exit(7)


def build_something_else(folder):
    env = Obedient()
    try:
        (folder / "first").touch(exist_ok=False)
    except FileExistsError:
        env.render_mode = None
    return env


def test_what_cannot_be_built_is_said(tmp_path):
    with pytest.raises(ImportError, match="install the simulator"):
        RolloutWorkers(refuse_to_build, 1, 1)
    with pytest.raises(RuntimeError, match=r"worker 0 died \(exit code 7\) while it built its environments"):
        RolloutWorkers(die_while_building, 1, 1)
    with pytest.raises(ValueError, match="alike environments"):
        RolloutWorkers(partial(build_something_else, tmp_path), 2, 2)


def test_workers_close_their_environments_and_have_their_time_to_do_so(tmp_path, monkeypatch):
    with RolloutWorkers(partial(Obedient, tmp_path), 2, 2) as workers:
        pids = processes(begin(workers, np.arange(2)))
    assert {path.name for path in tmp_path.iterdir()} == {f"closed {pid:.0f}" for pid in pids}

    monkeypatch.setattr(rollout_workers, "GRACE_SECONDS", 0.2)
    started = time.monotonic()
    with RolloutWorkers(Obedient, 1, 1) as workers:
        let_sleep(workers)
    assert time.monotonic() - started < 30


def test_after_an_error_nobody_waits_for_the_workers(monkeypatch):
    def fail_meanwhile():
        with RolloutWorkers(Obedient, 1, 1) as workers:
            let_sleep(workers)
            raise KeyError

    monkeypatch.setattr(rollout_workers, "GRACE_SECONDS", 50.0)
    started = time.monotonic()
    with pytest.raises(KeyError):
        fail_meanwhile()
    assert time.monotonic() - started < 30


def test_signals_leave_a_worker_alone_from_its_start_on(monkeypatch):
    starting = Worker.__init__

    def start_and_interrupt(worker, *arguments, **options):
        starting(worker, *arguments, **options)
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(worker.process.pid, number)  # before it can have done anything

    monkeypatch.setattr(Worker, "__init__", start_and_interrupt)
    with RolloutWorkers(Obedient, 1, 1) as workers:
        begin(workers, np.arange(1))
        outcome = order(workers, np.arange(1), r0="interrupt")
    assert outcome.records["reward"].tolist() == [1000]


def test_what_an_environment_starts_hears_signals():
    with RolloutWorkers(Obedient, 1, 1) as workers:
        begin(workers, np.arange(1))
        outcome = order(workers, np.arange(1), r0="start a process")
    assert outcome.records["reward"].tolist() == [1000]


SCRIPT = r"""
    import os, sys, time
    import gymnasium, numpy as np
    from gymnasium.spaces import Box, Dict
    from shortcut_policy.evaluation import evaluate

    class Slow(gymnasium.Env):
        observation_space, action_space = Dict(x=Box(0, 1, (1,))), Box(0, 1, (1,))
        def __init__(self):
            self.wait("build")
        def reset(self, *, seed=None, options=None):
            return {"x": np.zeros(1)}, {}
        def step(self, action):
            self.wait("step")
            return {"x": np.zeros(1)}, 0.0, False, False, {}
        def wait(self, stage):
            if stage == sys.argv[1]:
                os.write(1, b"waiting\n")
                time.sleep(60)

    class Constant:
        def reset(self, seeds): pass
        def act(self, observation): return np.zeros((2, 1))

    evaluate(Constant(), Slow, episodes=2, slots=2, num_envs=2, workers=2)
"""


STOPS = {"Ctrl-C": signal.SIGINT, "SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGKILL": signal.SIGKILL}


@pytest.mark.parametrize(
    ("stopped", "stage"),
    [
        ("the group by Ctrl-C", "build"),
        ("the group by Ctrl-C", "step"),
        ("the group by SIGTERM", "step"),
        ("the parent by SIGINT", "step"),
        ("the parent by SIGKILL", "step"),
    ],
)
def test_nothing_is_left_of_an_interrupted_evaluation(tmp_path, stopped, stage):
    script = tmp_path / "evaluation.py"
    script.write_text(textwrap.dedent(SCRIPT))
    root = Path(__file__).parents[1]
    process = subprocess.Popen(
        [sys.executable, script, stage],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        for _ in range(2):  # both workers
            assert process.stdout.readline() == "waiting\n"
        number = next(n for word, n in STOPS.items() if stopped.endswith(word))
        (os.killpg if "the group" in stopped else os.kill)(process.pid, number)
        out, errors = process.communicate(timeout=30)  # returns when no process holds the pipes any more
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -number
    assert out == ""
    assert errors.count("Traceback") == (1 if number == signal.SIGINT else 0), errors  # workers have nothing to say
    assert errors.count("KeyboardInterrupt") == errors.count("Traceback"), errors


def test_a_process_that_ends_takes_the_workers_along_that_it_never_closed():
    program = """
import numpy as np
from shortcut_policy.realtime.sampling_process import SamplingProcess
kept = SamplingProcess(lambda: lambda history: history["x"])
kept({"x": np.zeros(1)})
"""
    root = Path(__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
