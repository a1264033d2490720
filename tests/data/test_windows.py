import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shortcut_policy.data.windows import make_windows


def test_default_starts_the_chunk_at_now():
    windows = make_windows([3, 5], observation_steps=2, horizon=3)
    assert windows.observation_index.tolist() == [[0, 0], [0, 1], [1, 2], [3, 3], [3, 4]]
    assert windows.action_index.tolist() == [[0, 1, 2], [1, 2, 2], [2, 2, 2], [3, 4, 4], [4, 4, 4]]
    assert windows.action_is_pad.astype(int).tolist() == [
        [0, 0, 0],
        [0, 0, 1],
        [0, 1, 1],
        [0, 0, 1],
        [0, 1, 1],
    ]
    assert windows.observation_index.dtype == windows.action_index.dtype == np.int64
    assert windows.action_is_pad.dtype == bool
    assert len(windows) == 5


def test_diffusion_policy_alignment():
    # Diffusion Policy's create_indices(episode_ends=[5], sequence_length=4, pad_before=1, pad_after=2) gives, by hand,
    # rows (buffer_start, buffer_end, sample_start, sample_end); the sampler repeats the edges outside sample_start:end.
    rows = [(0, 3, 1, 4), (0, 4, 0, 4), (1, 5, 0, 4), (2, 5, 0, 3), (3, 5, 0, 2)]
    sequences = [[0, 0, 1, 2], [0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 4], [3, 4, 4, 4]]
    windows = make_windows([5], observation_steps=2, horizon=4, action_offset=-1, pad_before=1, pad_after=2)
    assert windows.action_index.tolist() == sequences
    assert windows.observation_index.tolist() == [sequence[:2] for sequence in sequences]
    for is_pad, (_, _, start, end) in zip(windows.action_is_pad, rows, strict=True):
        assert np.flatnonzero(~is_pad).tolist() == list(range(start, end))


def test_no_padding_keeps_only_whole_windows():
    windows = make_windows([6], observation_steps=2, horizon=3, pad_before=0, pad_after=0)
    assert windows.observation_index.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert windows.action_index.tolist() == [[1, 2, 3], [2, 3, 4], [3, 4, 5]]
    assert not windows.action_is_pad.any()


def test_short_episodes_are_left_out():
    windows = make_windows([2, 6], observation_steps=1, horizon=4, pad_after=0)
    assert windows.action_index.tolist() == [[2, 3, 4, 5]]


def brute_force(episode_ends, observation_steps, horizon, action_offset, pad_before, pad_after):
    observations, actions, pads = [], [], []
    start = 0
    for end in episode_ends:
        for now in range(start, end):
            observed = [now - k for k in reversed(range(observation_steps))]
            acted = [now + action_offset + k for k in range(horizon)]
            if sum(row < start for row in observed) > pad_before or acted[-1] - (end - 1) > pad_after:
                continue
            observations.append([max(row, start) for row in observed])
            actions.append([min(max(row, start), end - 1) for row in acted])
            pads.append([not start <= row < end for row in acted])
        start = end
    return observations, actions, pads


@given(data=st.data())
def test_agrees_with_a_loop(data):
    lengths = data.draw(st.lists(st.integers(1, 7), min_size=1, max_size=5))
    observation_steps = data.draw(st.integers(1, 4))
    horizon = data.draw(st.integers(1, 6))
    arguments = {
        "observation_steps": observation_steps,
        "horizon": horizon,
        "action_offset": data.draw(st.integers(1 - observation_steps, 2)),
        "pad_before": data.draw(st.integers(0, observation_steps - 1)),
        "pad_after": data.draw(st.integers(0, horizon - 1)),
    }
    ends = np.cumsum(lengths)
    observations, actions, pads = brute_force(ends, **arguments)
    if not observations:
        with pytest.raises(ValueError, match="no window fits"):
            make_windows(ends, **arguments)
        return
    windows = make_windows(ends, **arguments)
    assert windows.observation_index.tolist() == observations
    assert windows.action_index.tolist() == actions
    assert windows.action_is_pad.tolist() == pads


@given(lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5), horizon=st.integers(1, 20))
def test_every_step_is_now_once_by_default(lengths, horizon):
    windows = make_windows(np.cumsum(lengths), observation_steps=2, horizon=horizon)
    assert windows.observation_index[:, -1].tolist() == list(range(sum(lengths)))
    assert windows.action_index[:, 0].tolist() == list(range(sum(lengths)))
    assert not windows.action_is_pad[:, 0].any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"observation_steps": 0}, "observation_steps must be at least 1, not 0"),
        ({"horizon": 0}, "horizon must be at least 1, not 0"),
        ({"horizon": 2.5}, "horizon must be an integer, not 2.5"),
        ({"action_offset": -2}, "action_offset must be at least -1, not -2"),
        ({"pad_before": 2}, "pad_before must be between 0 and 1, not 2"),
        ({"pad_after": 4}, "pad_after must be between 0 and 3, not 4"),
        ({"pad_after": -1}, "pad_after must be between 0 and 3, not -1"),
        ({"horizon": 9, "pad_after": 2}, "longest of 2 episodes has 5 steps.*horizon 9.*pad_after 2"),
        ({"episode_ends": [4, 4]}, "must rise strictly"),
        ({"episode_ends": []}, "1-D integer"),
    ],
)
def test_refuses(changes, message):
    arguments = {"episode_ends": [4, 9], "observation_steps": 2, "horizon": 4} | changes
    with pytest.raises(ValueError, match=message):
        make_windows(arguments.pop("episode_ends"), **arguments)
