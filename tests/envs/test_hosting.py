import re

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict

from envs.hosting import EnvironmentHost


class Tape(gymnasium.Env):
    """Observes its seed and the actions so far; the k-th step is rewarded with k; closing is noted in `closed`."""

    def __init__(self, closed, image_size=2):
        self.render_mode = "rgb_array"
        self.closed = closed
        self.observation_space = Dict(
            state=Box(-np.inf, np.inf, (2,), np.float64),
            image=Box(0, 255, (image_size, 3, 3), np.uint8),
            count=Box(0, 9, (), np.int64),
        )
        self.action_space = Box(-1, 1, (1,), np.float32)
        self.canvas = np.zeros((4, 5, 3), np.uint8)

    def reset(self, *, seed=None, options=None):
        assert type(seed) is int
        self.seed, self.count, self.sum = seed, 0, 0.0
        return self.observe(), {"is_success": True}

    def step(self, action):
        assert action.dtype == np.float32
        self.count += 1
        self.sum += float(action[0])
        info = {"is_success": self.count == 2} if self.count < 3 else {}
        return self.observe(), float(self.count), self.count == 3, self.count == 4, info

    def observe(self):
        image = np.full(self.observation_space["image"].shape, self.count, np.uint8)
        return {"count": self.count, "state": np.array((self.seed, self.sum)), "image": image}

    def render(self):
        self.canvas[:] = 10 * self.count + self.seed
        return self.canvas

    def close(self):
        self.closed.append(self)


@pytest.fixture
def closed():
    return []


@pytest.fixture
def host(closed):
    with EnvironmentHost(lambda: Tape(closed), 3) as host:
        yield host


def step(host, rows, *actions):
    return host.step(rows, np.array(actions, np.float32)[:, None])


def test_only_the_chosen_rows_are_reset_and_stepped(host):
    begun = host.reset([0, 2], np.array([7, 8]), [False, False]).records
    assert begun["observation"]["state"].tolist() == [[7, 0], [8, 0]]
    step(host, [2], 0.5)
    later = step(host, [2, 0], 0.25, 1.0).records
    assert later["observation"]["state"].tolist() == [[8, 0.75], [7, 1.0]]
    assert later["observation"]["count"].tolist() == [2, 1]
    assert later["observation"]["image"].tolist() == [np.full((2, 3, 3), n).tolist() for n in (2, 1)]


def test_a_record_has_the_space_of_every_key_and_the_outcome(host):
    records = host.reset([1], [0], [False]).records
    observation = records["observation"]
    assert {key: (observation[key].dtype, observation[key].shape) for key in observation.dtype.names} == {
        "state": (np.float64, (1, 2)),
        "image": (np.uint8, (1, 2, 3, 3)),
        "count": (np.int64, (1,)),
    }
    flags = ("reward", "terminated", "truncated", "told", "success", "lost")
    assert tuple(records[flag].item() for flag in flags) == (0.0, False, False, False, False, False)
    steps = [step(host, [1], 0).records[0] for _ in range(4)]
    assert [tuple(record[flag].item() for flag in flags) for record in steps] == [
        (1.0, False, False, True, False, False),
        (2.0, False, False, True, True, False),
        (3.0, True, False, False, False, False),
        (4.0, False, True, False, False, False),
    ]


def test_frames_are_those_of_the_filmed_episodes_and_keep_their_content(host):
    begun = host.reset([0, 1, 2], [1, 2, 3], [False, True, True])
    assert {i: image[0, 0, 0] for i, image in begun.frames.items()} == {1: 2, 2: 3}
    later = step(host, [2, 0], 0, 0)  # i counts within the request
    assert {i: image[0, 0, 0] for i, image in later.frames.items()} == {0: 13}
    assert begun.frames[2].tolist() == np.full((4, 5, 3), 3).tolist()
    assert host.reset([1, 2], [4, 5], [False, False]).frames == {}


def test_the_spec_is_what_the_environment_presents(host):
    spec = host.spec
    assert spec.observation_space["image"] == Box(0, 255, (2, 3, 3), np.uint8)
    assert (spec.action_space.shape, spec.render_mode, spec.action_representation) == ((1,), "rgb_array", "as_stored")


def test_the_environment_names_its_actions(closed):
    class Absolute(Tape):
        metadata = {"action_representation": "absolute_pose"}  # noqa: RUF012

    with EnvironmentHost(lambda: Absolute(closed), 1) as host:
        assert host.spec.action_representation == "absolute_pose"


def test_all_environments_are_closed_even_after_an_error(closed):
    with pytest.raises(KeyError), EnvironmentHost(lambda: Tape(closed), 3):
        raise KeyError
    assert len(closed) == 3


def test_if_one_cannot_be_built_the_others_are_closed(closed):
    left = [1, 1]

    def make():
        left.pop()
        return Tape(closed)

    with pytest.raises(IndexError):
        EnvironmentHost(make, 3)
    assert len(closed) == 2


def test_environments_must_be_alike(closed):
    sizes = iter((2, 3))
    with pytest.raises(ValueError, match=r"alike environments, got .*\(2, 3, 3\).*\(3, 3, 3\)"):
        EnvironmentHost(lambda: Tape(closed, next(sizes)), 2)
    assert len(closed) == 2


@pytest.mark.parametrize("said", [np.True_, 1, 1.0, np.array([True])])
def test_success_may_be_said_in_several_types(closed, said):
    class Saying(Tape):
        def step(self, action):
            return *super().step(action)[:-1], {"is_success": said}

    with EnvironmentHost(lambda: Saying(closed), 1) as host:
        host.reset([0], [0], [False])
        assert step(host, [0], 0).records["success"].tolist() == [True]


@pytest.mark.parametrize("said", [{"task": False}, "no", None, [True, False]])
def test_success_that_is_no_bool_is_quoted(closed, said):
    class Saying(Tape):
        def step(self, action):
            return *super().step(action)[:-1], {"is_success": said}

    with EnvironmentHost(lambda: Saying(closed), 1) as host:
        host.reset([0], [0], [False])
        with pytest.raises(ValueError, match=rf"is_success={re.escape(repr(said))}: it must be a bool"):
            step(host, [0], 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": np.full((2, 3, 3), 0.5)}, "'image' holds 0.5, and its observation_space declares uint8: make them"),
        ({"image": np.full((2, 3, 3), 300)}, "'image' holds 300, and its observation_space declares uint8: make them"),
        ({"image": np.full((2, 3, 3), -1)}, "'image' holds -1, and"),
        (
            {"state": np.zeros(1)},
            r"'state' has shape \(1,\), and its observation_space declares \(2,\): make them agree",
        ),
        ({"state": 0.0}, r"'state' has shape \(\), and its observation_space declares \(2,\)"),
        ({"image": np.zeros((3, 2, 3), np.uint8)}, r"'image' has shape \(3, 2, 3\), and .* declares \(2, 3, 3\)"),
        ({"count": None}, "observation_space declares 'count', and its observation has only 'state', 'image'"),
    ],
)
def test_an_observation_is_what_its_space_says(closed, changes, message):
    class Other(Tape):
        def observe(self):
            values = {**super().observe(), **changes}
            return {key: values[key] for key in ("state", "image", "count") if values[key] is not None}

    with EnvironmentHost(lambda: Other(closed), 1) as host, pytest.raises(ValueError, match=message):
        host.reset([0], [0], [False])


def test_the_same_numbers_may_come_in_another_type_or_with_axes_of_length_one(closed):
    class Other(Tape):
        def observe(self):
            state = np.array([[self.seed, self.sum]], np.float32)
            return {"state": state, "image": np.full((2, 3, 3), 255.0), "count": [self.count]}

    with EnvironmentHost(lambda: Other(closed), 1) as host:
        observation = host.reset([0], [7], [False]).records["observation"]
    assert observation["state"].tolist() == [[7, 0]]
    assert observation["image"].tolist() == np.full((1, 2, 3, 3), 255).tolist()
    assert observation["count"].tolist() == [0]
