import pytest
import torch

from shortcut_policy.chunking import RecedingHorizon


class Sampler:
    """Chunks whose action k of slot b in call c is (c, b, k); keeps the histories and masks that it was given."""

    def __init__(self, horizon=5):
        self.horizon = horizon
        self.histories, self.needed = [], []

    def __call__(self, history, needed):
        self.histories.append({key: value.squeeze(-1).tolist() for key, value in history.items()})
        self.needed.append(needed.tolist())
        call, slots = len(self.histories) - 1, len(needed)
        return torch.tensor([[(call, slot, k) for k in range(self.horizon)] for slot in range(slots)])


def observe(*values):
    return {"o": torch.tensor(values)[:, None]}


def act(queue, sampler, *values):
    return [tuple(action) for action in queue.act(observe(*values), sampler).tolist()]


def test_a_chunk_is_executed_for_some_steps_and_then_sampled_anew():
    sampler = Sampler()
    queue = RecedingHorizon(observation_steps=2, action_steps=3)
    actions = [act(queue, sampler, float(step))[0] for step in range(7)]
    assert actions == [(0, 0, 0), (0, 0, 1), (0, 0, 2), (1, 0, 0), (1, 0, 1), (1, 0, 2), (2, 0, 0)]
    assert sampler.histories == [{"o": [[0.0, 0.0]]}, {"o": [[2.0, 3.0]]}, {"o": [[5.0, 6.0]]}]


@pytest.mark.parametrize(
    ("observation_steps", "histories"),
    [(1, [[0.0], [1.0], [2.0], [3.0]]), (3, [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 2.0], [1.0, 2.0, 3.0]])],
)
def test_a_history_begins_with_the_first_observation_repeated(observation_steps, histories):
    sampler = Sampler()
    queue = RecedingHorizon(observation_steps, action_steps=1)
    for step in range(4):
        act(queue, sampler, float(step))
    assert [history["o"][0] for history in sampler.histories] == histories


def test_a_slot_that_is_reset_begins_anew_and_the_others_go_on():
    sampler = Sampler()
    queue = RecedingHorizon(observation_steps=2, action_steps=3)
    act(queue, sampler, 0.0, 10.0)
    queue.reset(torch.tensor([False, True]))
    assert act(queue, sampler, 1.0, 20.0) == [(0, 0, 1), (1, 1, 0)]
    assert act(queue, sampler, 2.0, 21.0) == [(0, 0, 2), (1, 1, 1)]
    assert act(queue, sampler, 3.0, 22.0) == [(2, 0, 0), (1, 1, 2)]
    assert act(queue, sampler, 4.0, 23.0) == [(2, 0, 1), (3, 1, 0)]
    assert sampler.needed == [[True, True], [False, True], [True, False], [False, True]]
    assert sampler.histories[1] == {"o": [[0.0, 1.0], [20.0, 20.0]]}
    assert sampler.histories[2] == {"o": [[2.0, 3.0], [21.0, 22.0]]}
    assert sampler.histories[3] == {"o": [[3.0, 4.0], [22.0, 23.0]]}


def test_after_a_reset_of_all_the_number_of_slots_may_change():
    sampler = Sampler()
    queue = RecedingHorizon(observation_steps=2, action_steps=3)
    queue.reset(torch.tensor([True]))  # nothing to forget yet
    act(queue, sampler, 1.0)
    with pytest.raises(ValueError, match=r"for 2 slots after 1: call reset\(\)"):
        act(queue, sampler, 2.0, 3.0)
    queue.reset()
    assert act(queue, sampler, 2.0, 3.0) == [(1, 0, 0), (1, 1, 0)]
    assert sampler.histories[-1] == {"o": [[2.0, 2.0], [3.0, 3.0]]}


def test_observations_of_any_shape_are_queued_and_a_reused_buffer_does_no_harm():
    sampler = Sampler()
    histories = []
    queue = RecedingHorizon(observation_steps=2, action_steps=1)

    def sample(history, needed):
        histories.append(history["image"])
        return sampler({}, needed)

    image = torch.zeros(3, 4, 4, 1)
    queue.act({"image": image}, sample)
    image += 1
    queue.act({"image": image}, sample)
    image += 1
    assert histories[1].shape == (3, 2, 4, 4, 1)
    assert (histories[1][:, 0] == 0).all()
    assert (histories[1][:, 1] == 1).all()
