import numpy as np
import pytest
import torch

from shortcut_policy.data.batches import WindowBatches
from shortcut_policy.data.episodes import Episodes
from shortcut_policy.data.windows import make_windows

ENDS = np.array([4, 10])
WINDOWS = make_windows(ENDS, observation_steps=2, horizon=3)
STEPS = np.arange(10, dtype=np.float32)[:, None]
EPISODES = Episodes(
    {"step": STEPS, "image": STEPS[:, None, None].repeat(3, 3).astype(np.uint8)}, 10 * STEPS, ENDS, "test"
)


def batches(batch_size=4, seed=0):
    return WindowBatches(EPISODES, WINDOWS, batch_size, seed)


def numbers(batch):
    """The windows of a batch: with every step "now" once, a window's number is that of its newest observation."""
    return batch.observation["step"][:, -1, 0].long().tolist()


@pytest.mark.parametrize("batch_size", [1, 4, 10, 25])
def test_every_epoch_holds_every_window_once_though_batches_straddle_epochs(batch_size):
    source = batches(batch_size)
    order = [number for step in range(100 // batch_size) for number in numbers(source.batch(step))]
    epochs = [order[i : i + 10] for i in range(0, 100, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 10, "every epoch is shuffled anew"


def test_order_does_not_depend_on_the_batch_size():
    small, large = batches(5), batches(20)
    assert [n for step in range(8) for n in numbers(small.batch(step))] == [
        n for step in range(2) for n in numbers(large.batch(step))
    ]


def test_any_batch_can_be_had_at_any_time():
    in_order, source = batches(), batches()
    expected = [numbers(in_order.batch(step)) for step in range(12)]
    for step in (7, 2, 2, 11, 0, 10, 5):
        assert numbers(source.batch(step)) == expected[step]


def test_seeds_give_different_orders():
    assert len({tuple(numbers(batches(10, seed).batch(0))) for seed in range(5)}) == 5


def test_a_slice_of_a_batch_holds_its_rows():
    source = batches()
    for step in range(6):
        whole = numbers(source.batch(step))
        for rows in (slice(0, 2), slice(2, 4), slice(1, None), slice(-1, None), slice(3, 3)):
            assert numbers(source.batch(step, rows)) == whole[rows]


def test_a_window_holds_the_rows_that_its_index_names():
    index = torch.tensor([3, 0, 9, 3])
    batch = batches().windows(index)
    observed, acted = WINDOWS.observation_index[index], WINDOWS.action_index[index]
    assert batch.observation.keys() == {"step", "image"}
    for key, values in EPISODES.observations.items():
        assert np.array_equal(batch.observation[key].numpy(), values[observed])
        assert batch.observation[key].numpy().dtype == values.dtype
    assert np.array_equal(batch.action.numpy(), EPISODES.actions[acted])
    assert np.array_equal(batch.action_is_pad.numpy(), WINDOWS.action_is_pad[index])


def test_sequential_windows_are_spread_over_the_data():
    source = batches(3)
    assert [numbers(batch) for batch in source.sequential(4)] == [[0, 2, 5], [7]]
    everything = [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    assert [numbers(batch) for batch in source.sequential()] == everything
    assert [numbers(batch) for batch in source.sequential(99)] == everything


def test_an_empty_batch_is_refused():
    with pytest.raises(ValueError, match="batch_size must be positive, got 0"):
        batches(0)
