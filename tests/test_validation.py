import dataclasses

import numpy as np
import pytest
import torch
from small_policy import demonstrations, small_policy

from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.data.batches import WindowBatches
from shortcut_policy.data.windows import make_windows
from shortcut_policy.validation import chunk_figures, held_out_loss, validate

GARBAGE = 1e6


def held_out(batch_size=4, action_offset=0):
    """Windows whose observation "angle" is the number of the step, so that a fake policy can look its actions up."""
    episodes = demonstrations()
    steps = np.arange(episodes.num_steps, dtype=np.float32)[:, None]
    episodes = dataclasses.replace(episodes, observations={**episodes.observations, "angle": steps})
    windows = make_windows(episodes.episode_ends, observation_steps=2, horizon=8, action_offset=action_offset)
    return episodes, windows, WindowBatches(episodes, windows, batch_size)


@pytest.mark.parametrize("action_offset", [0, -1])
@pytest.mark.parametrize(("shift", "expected"), [((0.0, 0.0), 0.0), ((3.0, 4.0), 12.5**0.5)])
def test_action_error_is_the_distance_to_the_demonstrated_actions(monkeypatch, action_offset, shift, expected):
    """Nothing is demonstrated beyond the episode's end or the executed actions: there the fake policy is far off."""
    policy = small_policy(action_offset=action_offset)
    episodes, windows, batches = held_out(action_offset=action_offset)

    def demonstrated(observation, num_steps, **_):
        now = observation["angle"][:, -1, 0].long().numpy()
        chunk = torch.from_numpy(episodes.actions[windows.action_index[now]]) + torch.tensor(shift)
        chunk[torch.from_numpy(windows.action_is_pad[now])] = GARBAGE
        chunk = chunk[:, -action_offset:]
        chunk[:, policy.config.action_steps :] = GARBAGE
        return chunk

    monkeypatch.setattr(policy, "sample", demonstrated)
    figures = chunk_figures(policy, batches, windows=26, num_steps=(1, 4))
    assert figures["action_error_1_steps"] == figures["action_error_4_steps"] == pytest.approx(expected, abs=1e-4)
    assert figures["step_gap_1_steps"] == 0.0
    assert figures["roughness_1_steps"] == pytest.approx(figures["roughness_demonstrated"], abs=1e-4)


def test_roughness_and_gap_of_chunks_that_are_known(monkeypatch):
    """One step zigzags between 0 and 2 (second differences 4), two rest at 1, and so are 1 away; a line is straight."""
    line = np.arange(26, dtype=np.float32)[:, None] * np.float32([3.0, -1.0])
    episodes = dataclasses.replace(demonstrations(), actions=line)
    batches = WindowBatches(episodes, make_windows(episodes.episode_ends, observation_steps=2, horizon=8), 13)
    policy = small_policy(episodes=episodes)
    zigzag = torch.tensor([0.0, 2.0]).repeat(4)[None, :, None].expand(13, 8, 2)
    monkeypatch.setattr(policy, "sample", lambda _, steps, **__: zigzag if steps == 1 else torch.ones(13, 8, 2))
    figures = chunk_figures(policy, batches, windows=26, num_steps=(1, 2))
    assert figures["roughness_1_steps"] == 4.0
    assert figures["roughness_2_steps"] == figures["roughness_demonstrated"] == 0.0
    assert figures["step_gap_1_steps"] == 1.0
    assert "step_gap_2_steps" not in figures


def test_rotations_that_are_the_same_are_no_error(monkeypatch):
    """A gripper that points down is turned by pi, about an axis or its opposite."""
    down = np.tile(np.float32([0.1, 0.2, 0.9, np.pi, 0, 0, 1]), (26, 1))
    episodes = dataclasses.replace(demonstrations(), actions=down).encoded(ActionCodec("absolute_pose"))
    batches = WindowBatches(episodes, make_windows(episodes.episode_ends, observation_steps=2, horizon=8), 13)
    policy = small_policy(episodes=episodes)
    upside = torch.tensor([0.1, 0.2, 0.9, -np.pi, 0, 0, 1]).expand(13, 8, 7)
    monkeypatch.setattr(policy, "sample", lambda *_, **__: upside)
    assert chunk_figures(policy, batches, windows=26, num_steps=(1,))["action_error_1_steps"] < 1e-5


def test_held_out_loss_is_repeatable_and_that_of_the_objective():
    policy, (_, _, batches) = small_policy(), held_out(batch_size=13)
    torch.manual_seed(1)
    losses = held_out_loss(policy, batches, windows=26)
    torch.manual_seed(2)
    assert held_out_loss(policy, batches, windows=26) == losses
    assert held_out_loss(policy, batches, windows=26, seed=1) != losses
    levels = {name for name in losses if name.startswith("bootstrap_loss_")}
    assert losses.keys() - levels == {"loss", "flow_loss", "bootstrap_loss"}
    assert levels < {f"bootstrap_loss_{2**level}_steps" for level in range(7)}, "26 windows: fewer rows than levels"
    share = (losses["loss"] - losses["flow_loss"]) / (losses["bootstrap_loss"] - losses["flow_loss"])
    assert share == pytest.approx(0.25, abs=0.03), "a quarter of the rows is bootstrapped"


def test_held_out_loss_does_not_depend_on_how_the_windows_are_batched():
    policy = small_policy()
    whole = held_out_loss(policy, held_out(26)[2], windows=26)
    for batch_size in (5, 7):  # 26 = 5 * 5 + 1: the last batch is too small for a bootstrap row of its own
        assert held_out_loss(policy, held_out(batch_size)[2], windows=26) == pytest.approx(whole, rel=1e-4)


def test_the_noise_of_chunks_is_the_same_at_every_call_and_for_every_number_of_steps():
    policy, (_, _, batches) = small_policy(), held_out()
    both = chunk_figures(policy, batches, windows=10, num_steps=(1, 2))
    again = chunk_figures(policy, batches, windows=10, num_steps=(2,))
    assert again["action_error_2_steps"] == both["action_error_2_steps"] != both["action_error_1_steps"]


def test_validation_measures_the_network_it_is_given():
    policy, other, (_, _, batches) = small_policy(), small_policy(seed=1), held_out()
    scores = validate(policy, other.network, batches, 8, (1, 2))
    assert scores == validate(other, other.network, batches, 8, (1, 2))
    assert scores != validate(policy, policy.network, batches, 8, (1, 2))
    assert scores.keys() >= {
        *(f"valid/{name}" for name in ("loss", "flow_loss", "bootstrap_loss")),
        *(f"valid/{name}_{steps}_steps" for name in ("action_error", "roughness") for steps in (1, 2)),
        "valid/step_gap_1_steps",
    }
