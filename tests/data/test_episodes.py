import numpy as np
import pytest

from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.data.episodes import Episodes

LENGTHS = (3, 1, 4, 2)


def make_episodes(lengths=LENGTHS, **changes) -> Episodes:
    """Observation row n is (n, n), action row n is (10 n,)."""
    steps = sum(lengths)
    fields = {
        "observations": {
            "state": np.repeat(np.arange(steps, dtype=np.float32)[:, None], 2, axis=1),
            "image": np.zeros((steps, 4, 4, 3), np.uint8),
        },
        "actions": 10 * np.arange(steps, dtype=np.float32)[:, None],
        "episode_ends": np.cumsum(lengths),
        "source": "a test",
    }
    return Episodes(**(fields | changes))


def test_counts():
    episodes = make_episodes()
    assert (episodes.num_steps, episodes.num_episodes) == (10, 4)
    assert episodes.episode_starts.tolist() == [0, 3, 4, 8]
    assert episodes.lengths.tolist() == [3, 1, 4, 2]
    assert episodes.episode_starts.dtype == episodes.lengths.dtype == np.int64


def test_select_copies_episodes_in_the_given_order():
    chosen = make_episodes().select([3, 0, 3])
    assert chosen.episode_ends.tolist() == [2, 5, 7]
    assert chosen.episode_ends.dtype == np.int64
    assert chosen.actions[:, 0].tolist() == [80, 90, 0, 10, 20, 80, 90]
    assert chosen.observations["state"][:, 1].tolist() == [8, 9, 0, 1, 2, 8, 9]
    assert chosen.observations["image"].shape == (7, 4, 4, 3)


@pytest.mark.parametrize(
    ("indices", "message"),
    [([], "non-empty"), ([4], "4 lies outside 0 ... 3"), ([0, -1], "-1 lies outside"), ([0.5], "integers")],
)
def test_select_refuses(indices, message):
    with pytest.raises(ValueError, match=message):
        make_episodes().select(indices)


def test_split_holds_out_whole_episodes():
    episodes = make_episodes(lengths=tuple(range(1, 21)))
    train, valid = episodes.split(0.25, seed=3)
    assert (train.num_episodes, valid.num_episodes) == (15, 5)
    # Every length is unique, so lengths name episodes: nothing lost, nothing twice, order kept.
    assert sorted([*train.lengths, *valid.lengths]) == list(range(1, 21))
    assert np.all(np.diff(train.lengths) > 0)
    assert np.all(np.diff(valid.lengths) > 0)
    starts = dict(zip(episodes.lengths, episodes.episode_starts, strict=True))
    for part in (train, valid):
        for length, start in zip(part.lengths, part.episode_starts, strict=True):
            rows = part.observations["state"][start : start + length, 0]
            assert rows.tolist() == list(range(starts[length], starts[length] + length))


def test_split_is_a_function_of_the_seed():
    episodes = make_episodes(lengths=tuple(range(1, 21)))
    first, again, other = (episodes.split(0.25, seed)[1].lengths.tolist() for seed in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize(("fraction", "num_valid"), [(0.01, 1), (0.5, 2), (0.99, 3)])
def test_split_leaves_neither_part_empty(fraction, num_valid):
    train, valid = make_episodes().split(fraction, seed=0)
    assert (train.num_episodes, valid.num_episodes) == (4 - num_valid, num_valid)


def test_split_of_nothing():
    episodes = make_episodes(lengths=(5,))
    assert episodes.split(0, seed=0) == (episodes, None)
    with pytest.raises(ValueError, match=r"0\.1 needs at least 2 episodes"):
        episodes.split(0.1, seed=0)


@pytest.mark.parametrize("fraction", [-0.1, 1, 1.5, float("nan")])
def test_split_refuses_fraction(fraction):
    with pytest.raises(ValueError, match=f"valid_fraction must lie in .* not {fraction}"):
        make_episodes().split(fraction, seed=0)


def with_value(array, index, value):
    array = array.copy()
    array[index] = value
    return array


FLOATS = np.zeros((10, 2), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"episode_ends": np.array([3, 4, 8, 9])}, "last episode ends at 9, but there are 10 actions"),
        ({"episode_ends": np.array([3, 4, 8, 12])}, "last episode ends at 12, but there are 10 actions"),
        ({"episode_ends": np.array([3, 3, 10])}, "episode 0 ends at 3 and episode 1 at 3"),
        ({"episode_ends": np.array([0, 10])}, "episode 0 ends at 0"),
        ({"episode_ends": np.array([], np.int64)}, "at least one episode"),
        ({"episode_ends": np.array([3.0, 10.0])}, "1-D integer"),
        ({"episode_ends": np.array([3, 10], np.int32)}, "int64, not int32"),
        ({"actions": FLOATS[:, 0]}, r"actions must be float32 \(N, A\), not float32 of shape \(10,\)"),
        ({"actions": FLOATS.astype(np.float64)}, "not float64"),
        ({"observations": {"x": FLOATS[:9]}}, "'x' has 9 rows, but there are 10 actions"),
        ({"observations": {"x": FLOATS.astype(int)}}, "'x' must be float32 or uint8"),
        ({"observations": {"x": FLOATS[:, 0]}}, "'x' must be"),
        (
            {"observations": {"x": with_value(FLOATS, (5, 1), np.nan)}},
            "'x': NaN or infinity at step 5, which is step 1 of episode 2",
        ),
        (
            {"actions": with_value(FLOATS, (slice(3, None), 0), -np.inf)},
            "actions: NaN or infinity at step 3, which is step 0 of episode 1",
        ),
    ],
)
def test_refuses_what_does_not_agree(changes, message):
    with pytest.raises(ValueError, match=message) as error:
        make_episodes(**changes)
    assert "(in a test)" in str(error.value)


def test_actions_are_encoded_once_and_the_episodes_say_how():
    codec = ActionCodec("absolute_pose")
    poses = np.tile(np.float32([1, 2, 3, 0, 0, 0, -1]), (10, 1))
    episodes = make_episodes(actions=poses, names=("a", "b", "c", "d")).encoded(codec)
    assert episodes.actions.dtype == np.float32
    assert episodes.actions[0].tolist() == [1, 2, 3, 1, 0, 0, 0, 1, 0, -1]
    part, held_out = episodes.split(0.25, seed=0)
    assert part.action_codec == held_out.action_codec == codec
    assert {*part.names, *held_out.names} == {"a", "b", "c", "d"}
    with pytest.raises(ValueError, match="encoded already, as 'absolute_pose' of 1 arm"):
        episodes.encoded(codec)
    with pytest.raises(ValueError, match="have 7 numbers, got 1"):
        make_episodes().encoded(codec)
