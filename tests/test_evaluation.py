import inspect
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path

import cloudpickle
import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

import envs
from shortcut_policy.episode_results import EpisodeResult, Evaluation
from shortcut_policy.evaluation import evaluate, evaluate_in, open_environments
from shortcut_policy.statistics import Interval

# Workers cannot import this module, which imports the library that they must not load.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


class CountingEnv(gymnasium.Env):
    """Counts its steps; the episode of seed s ends after `length(s)` steps, with success where s is even.

    The reward of a step is the action's first entry. Stepping an ended episode is an error. The observation "modules"
    tells whether this process has loaded torch and shortcut_policy. Where the folder `deaths` holds a file of the
    seed's name, the process is killed in the episode's third step, and the file is gone.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 7, "action_representation": "delta_pose"}  # noqa: RUF012

    def __init__(self, render_mode=None, deaths=None):
        self.render_mode = render_mode
        self.deaths = deaths
        self.observation_space = Dict(
            count=Box(0, np.inf, (2,), np.float32), noise=Box(0, 1, (), np.float64), modules=Box(0, 1, (2,), np.int64)
        )
        self.action_space = Box(-np.inf, np.inf, (2,), np.float32)

    @staticmethod
    def length(seed):
        return 2 + seed % 4

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seed, self.count = seed, 0
        return self.observe(), {}

    def step(self, action):
        assert self.count < self.length(self.seed), "an ended episode was stepped"
        self.count += 1
        if self.deaths and self.count == 3 and (self.deaths / str(self.seed)).exists():
            (self.deaths / str(self.seed)).unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        ended = self.count == self.length(self.seed)
        success = ended and self.seed % 2 == 0
        return self.observe(), float(action[0]), success, ended and not success, {"is_success": success}

    def render(self):
        return np.full((4, 6, 3), 10 * self.count, np.uint8)

    def observe(self):
        return {
            "count": np.array((1 + self.count, self.seed % 100), np.float32),
            "noise": np.array(self.np_random.uniform()),
            "modules": np.array([name in sys.modules for name in ("torch", "shortcut_policy")], np.int64),
        }


class SlotAgent:
    """Acts upon the observation, the slot, the seed and its own memory of the episode; keeps what it was given."""

    def __init__(self, key="count", scale=1.0):
        self.key, self.scale = key, scale
        self.waves, self.batches = [], []

    def reset(self, seeds):
        self.waves.append(list(seeds))
        self.generators = [np.random.default_rng(seed) for seed in seeds]

    def act(self, observation):
        self.batches.append(observation)
        noise = np.array([generator.uniform(size=2) for generator in self.generators])
        slot = np.arange(len(self.generators))[:, None]
        return self.scale * (np.sin(observation[self.key][:, :2]) + noise + 0.1 * slot)


def run(agent=None, env=CountingEnv, **options):
    return evaluate(agent or SlotAgent(), env, **{"episodes": 7, "slots": 5, "num_envs": 5, **options})


@pytest.mark.parametrize(
    ("num_envs", "workers", "max_steps"), [(1, 0, None), (2, 0, 3), (3, 0, None), (2, 1, None), (3, 2, 3)]
)
def test_results_do_not_depend_on_how_many_run_at_once_or_where(num_envs, workers, max_steps):
    reference = run(max_steps=max_steps)
    assert run(num_envs=num_envs, workers=workers, max_steps=max_steps) == reference
    scores = reference.scores
    assert len(set(scores)) == len(scores)  # else equality would show little


def test_seven_workers_give_the_same_results():
    assert run(slots=8, num_envs=7, workers=7) == run(slots=8, num_envs=3)


def test_there_are_no_more_workers_than_environments():
    processes = set()

    class Looking(SlotAgent):
        def act(self, observation):
            processes.update(process.pid for process in multiprocessing.active_children())
            return super().act(observation)

    run(Looking(), num_envs=2, workers=3)
    assert len(processes) == 2


def test_every_episode_has_its_seed_slot_length_and_outcome():
    episodes = run().episodes
    assert [episode.seed for episode in episodes] == list(range(100_000, 100_007))
    assert [episode.slot for episode in episodes] == [0, 1, 2, 3, 4, 0, 1]
    assert [episode.steps for episode in episodes] == [2, 3, 4, 5, 2, 3, 4]
    assert [episode.success for episode in episodes] == [True, False] * 3 + [True]
    assert all(episode.frames is None for episode in episodes)


def test_score_is_the_maximal_reward():
    class Script:
        def reset(self, seeds):
            self.rewards = iter((-3.0, 2.0, 1.0, -1.0, 0.0))

        def act(self, observation):
            return np.full((5, 2), next(self.rewards))

    assert run(Script()).scores.tolist() == [2, 2, 2, 2, 2, 2, 2]
    assert run(Script(), max_steps=1).scores.tolist() == [-3] * 7


def test_success_counts_only_before_the_cap():
    evaluation = run(max_steps=2)
    assert [episode.steps for episode in evaluation.episodes] == [2] * 7
    assert [episode.success for episode in evaluation.episodes] == [True, False, False, False, True, False, False]


def test_an_episode_that_succeeded_for_a_moment_has_succeeded():
    class Passing(CountingEnv):
        def step(self, action):
            observation, reward, terminated, truncated, _ = super().step(action)
            return observation, reward, terminated, truncated, {"is_success": self.count == 1}

    assert run(env=Passing).success_rate == 1


@pytest.mark.parametrize("max_steps", [None, 2])
def test_success_that_is_never_said_is_not_failure(max_steps):
    class Silent(CountingEnv):
        def step(self, action):
            return *super().step(action)[:-1], {"success": True}

    evaluation = run(env=Silent, max_steps=max_steps)
    assert {episode.success for episode in evaluation.episodes} == {None}
    assert np.isfinite(evaluation.mean_score)
    for read in (lambda: evaluation.success_rate, lambda: evaluation.success_interval):
        with pytest.raises(ValueError, match=r"whether 7 of 7 episodes succeeded is not known: .* needs 'is_success'"):
            read()


def test_success_may_be_said_in_the_last_step_alone():
    class Late(CountingEnv):
        def step(self, action):
            *outcome, info = super().step(action)
            return *outcome, info if outcome[2] or outcome[3] else {}

    assert run(env=Late).successes == run().successes


def test_the_agent_sees_full_batches_with_zeros_where_nothing_runs():
    agent = SlotAgent()
    run(agent, num_envs=3)
    seeds = range(100_000, 100_007)
    assert agent.waves == [
        [seeds[0], seeds[1], seeds[2], None, None],
        [seeds[5], None, None, seeds[3], seeds[4]],
        [None, seeds[6], None, None, None],
    ]
    lengths = [2, 3, 4]
    for step, batch in enumerate(agent.batches[:4]):
        assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
            "count": ((5, 2), np.float32),
            "noise": ((5,), np.float64),
            "modules": ((5, 2), np.int64),
        }
        for slot in range(5):
            runs = slot < 3 and step < lengths[slot]
            assert batch["count"][slot].tolist() == ([1 + step, slot] if runs else [0, 0])
            assert (batch["noise"][slot] > 0) == runs


def test_recording_keeps_the_frames_of_the_chosen_seeds_and_changes_nothing():
    env = partial(CountingEnv, render_mode="rgb_array")
    recorded = run(env=env, num_envs=2, record=[100_001, 100_004])
    assert recorded == run()
    assert recorded.render_fps == 7
    assert [episode.frames is not None for episode in recorded.episodes] == [
        False,
        True,
        False,
        False,
        True,
        False,
        False,
    ]
    frames = recorded.episodes[1].frames
    assert [frame[0, 0, 0] for frame in frames] == [0, 10, 20, 30]
    assert frames[0].shape == (4, 6, 3)
    in_workers = run(env=env, num_envs=2, record=[100_001], workers=2, episodes=2)
    np.testing.assert_array_equal(in_workers.episodes[1].frames, frames)


def test_progress_is_told_every_result():
    told = []
    evaluation = run(num_envs=3, progress=told.append)
    assert sorted(told, key=lambda result: result.seed) == list(evaluation.episodes)


def test_progress_hands_over_all_frames():
    told = []
    run(env=partial(CountingEnv, render_mode="rgb_array"), record=[100_001], progress=told.append)
    assert [len(result.frames) for result in told if result.frames] == [4]


def test_workers_load_neither_torch_nor_this_library():
    agent = SlotAgent()
    run(agent, num_envs=2, workers=1, episodes=2)
    assert agent.batches[0]["modules"][:2].tolist() == [[0, 0], [0, 0]]
    assert agent.batches[0]["count"][:2, 0].tolist() == [1, 1]  # these rows were not padding


def test_workers_do_not_run_the_main_script_again(tmp_path):
    head = """
        print("main script runs")
        import multiprocessing, sys, time
        import gymnasium, numpy as np
        from gymnasium.spaces import Box, Dict
        from shortcut_policy.evaluation import evaluate
    """
    tail = """
        class Constant:
            def reset(self, seeds): pass
            def act(self, observation): return np.full((2, 2), 0.5)

        print(evaluate(Constant(), CountingEnv, episodes=2, slots=2, num_envs=2, workers=2).scores)
    """
    script = tmp_path / "main.py"
    script.write_text(textwrap.dedent(head) + inspect.getsource(CountingEnv) + textwrap.dedent(tail))
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    output = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=60)
    assert output.stdout == "main script runs\n[0.5 0.5]\n", output.stderr


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_no_worker_survives_an_error_of_the_agent(error):
    class Failing(SlotAgent):
        def act(self, observation):
            if self.batches:
                raise error
            return super().act(observation)

    with pytest.raises(error):
        run(Failing(), num_envs=2, workers=2)
    assert multiprocessing.active_children() == []


@pytest.fixture
def deaths(tmp_path):
    """Return a function that lets a worker die, once for every call, when it runs an episode of these seeds."""

    def plan(*seeds):
        for seed in seeds:
            (tmp_path / str(seed)).touch()
        return tmp_path

    return plan


@pytest.mark.parametrize("workers", [1, 2])
def test_a_death_changes_no_result_and_is_reported(deaths, workers):
    folder = deaths(100_001, 100_005)
    agent, told = SlotAgent(), []
    env = partial(CountingEnv, render_mode="rgb_array", deaths=folder)
    with pytest.warns(RuntimeWarning, match="died") as warned:
        evaluation = run(agent, env, num_envs=4, workers=workers, record=[100_001, 100_002], progress=told.append)
    assert evaluation == run()
    lost = {1: ((1, 2, 3), (5, 6)), 2: ((1, 3), (5,))}[workers]  # all of that worker's that had not ended
    assert evaluation.reruns == tuple(100_000 + i for wave in lost for i in wave)
    for warning, wave in zip(warned, lost, strict=True):
        assert "signal 9" in str(warning.message)
        assert f"seed {', '.join(str(100_000 + i) for i in wave)}:" in str(warning.message)
    assert {result.seed for result in told if result.rerun} == set(evaluation.reruns)
    assert sorted(told, key=lambda result: result.seed) == list(evaluation.episodes)
    assert [len(episode.frames) for episode in evaluation.episodes if episode.frames] == [4, 5]
    assert len(agent.waves) == 4
    assert agent.waves[1] == [100_000 + i if i in lost[0] else None for i in range(5)]  # each in its own slot


def test_without_a_death_nothing_ran_again():
    assert run(num_envs=2, workers=2).reruns == ()


def test_an_episode_whose_worker_dies_twice_ends_the_evaluation():
    class DyingAlways(CountingEnv):
        def step(self, action):
            if self.seed == 100_001:
                os._exit(5)
            return super().step(action)

    with (
        pytest.warns(RuntimeWarning, match="exit code 5") as warned,
        pytest.raises(RuntimeError, match=r"died twice on the episodes with seed 100001:") as error,
    ):
        run(env=DyingAlways, num_envs=2, workers=2)
    assert len(warned) == 2
    assert "\n" not in str(error.value)
    assert multiprocessing.active_children() == []


def test_the_same_worker_may_die_on_different_episodes(deaths):
    env = partial(CountingEnv, deaths=deaths(100_001, 100_002))
    with pytest.warns(RuntimeWarning, match="died") as warned:
        evaluation = run(env=env, num_envs=1, workers=1, episodes=3)
    assert len(warned) == 2
    assert evaluation == run(episodes=3)
    assert evaluation.reruns == (100_001, 100_002)


@pytest.mark.parametrize(("metadata", "representation"), [("delta_pose", "delta_pose"), (None, "as_stored")])
def test_fitting_actions_pass(metadata, representation):
    def make():
        env = CountingEnv()
        env.metadata = {"action_representation": metadata} if metadata else {}
        return env

    assert run(env=make, action_representation=representation) == run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"episodes": -1}, "episodes=-1"),
        ({"num_envs": 6}, "num_envs=6 does not fit slots=5"),
        ({"num_envs": 0}, "num_envs=0"),
        ({"workers": -1}, "workers=-1"),
        ({"max_steps": 0}, "max_steps=0"),
        ({"record": [7]}, "seed 7 to record is not evaluated: choose from 100000 to 100006"),
        ({"only": [7]}, "seed 7 to run is not evaluated: choose from 100000 to 100006"),
        ({"only": []}, "evaluates nothing"),
        ({"only": [100_001], "record": [100_002]}, "seed 100002 to record is not evaluated"),
        ({"record": [100_000]}, "render_mode=None records nothing"),
        ({"env": partial(gymnasium.make, "CartPole-v1")}, "needs a Dict"),
        ({"action_representation": "absolute_pose"}, "are 'absolute_pose', the environment takes 'delta_pose'"),
        ({"action_representation": "as_stored"}, "are 'as_stored', the environment takes 'delta_pose'"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        run(**options)


@pytest.mark.parametrize("workers", [0, 2])
def test_environments_stay_open_for_several_evaluations(workers):
    reference = run(episodes=7)
    with open_environments(CountingEnv, 4, workers) as environments:
        for _ in range(2):
            assert evaluate_in(environments, SlotAgent(), episodes=7, slots=5) == reference


@pytest.mark.parametrize(
    ("only", "num_envs"), [([100_003], 5), ([100_006, 100_001, 100_000, 100_005], 5), ([100_001, 100_006], 1)]
)
def test_some_episodes_are_what_they_are_among_all(only, num_envs):
    """Seeds 100000 and 100005, 100001 and 100006 share a slot: they cannot run at the same time."""
    everything = {episode.seed: episode for episode in run().episodes}
    alone = run(only=only, num_envs=num_envs).episodes
    assert alone == tuple(everything[seed] for seed in sorted(only))


def test_an_agent_that_acts_for_too_few_slots_is_refused():
    class Short(SlotAgent):
        def act(self, observation):
            return super().act(observation)[:3]

    with pytest.raises(ValueError, match=r"shape \(3, 2\): the environment needs \(slots, A\) = \(5, 2\)"):
        run(Short())


def test_an_evaluation_summarises_its_episodes():
    scores = (1.0, 0.5, 0.0, 0.5)
    evaluation = Evaluation(tuple(EpisodeResult(i, i, score, score == 1, steps=3) for i, score in enumerate(scores)))
    assert (evaluation.num_episodes, evaluation.mean_score, evaluation.success_rate) == (4, 0.5, 0.25)
    # Wilson: (1 + z^2/2 +- z sqrt(3/4 + z^2/4)) / (4 + z^2) with z = 1.959964
    assert evaluation.success_interval.low == pytest.approx(0.045587, abs=1e-6)
    assert evaluation.success_interval.high == pytest.approx(0.699358, abs=1e-6)
    assert evaluation.score_interval == Interval(0.125, 0.875)


@pytest.mark.parametrize(("num_envs", "workers"), [(1, 0), (2, 2)])
def test_push_t_scores_the_same_however_it_runs(num_envs, workers):
    pytest.importorskip("gym_pusht")
    options = {"episodes": 3, "slots": 3, "max_steps": 8}
    env = partial(envs.make, "pusht")
    reference = run(SlotAgent("block_pos", 250), env, **{**options, "num_envs": 3})
    assert run(SlotAgent("block_pos", 250), env, num_envs=num_envs, workers=workers, **options) == reference
