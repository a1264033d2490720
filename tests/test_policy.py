from dataclasses import replace

import numpy as np
import pytest
import torch
from small_policy import demonstrations, small_policy
from torch import nn

from shortcut_policy.data.action_codec import ActionCodec
from shortcut_policy.data.batches import WindowBatches
from shortcut_policy.data.windows import make_windows
from shortcut_policy.policy import Policy


def observe(rows=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "angle": torch.randn(rows, 2, 1, generator=generator),
        "position": 512 * torch.rand(rows, 2, 2, generator=generator),
    }


def noise(rows=3, seed=0):
    return torch.randn(rows, 8, 2, generator=torch.Generator().manual_seed(seed))


class Still(nn.Module):
    """A network whose flow stands still, so that the sample is the noise; it counts calls and keeps conditions."""

    def __init__(self):
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))
        self.calls, self.condition = 0, None

    def encode(self, condition):
        self.condition = condition
        return condition

    def forward(self, x, t, d, encoded):
        self.calls += 1
        return torch.zeros_like(x)


@pytest.mark.parametrize(("action_offset", "length"), [(0, 8), (-1, 7)])
def test_a_sample_is_a_chunk_of_actions_from_now_on(action_offset, length):
    policy = small_policy(action_offset=action_offset)
    assert policy.sample(observe(5)).shape == (5, length, 2)
    assert policy.chunk_shape == (8, 2), "of the noise, past actions included"


def test_past_actions_are_cut_so_that_the_first_is_for_the_newest_observation():
    whole, aligned = small_policy(), small_policy(action_offset=-1)
    expected = whole.sample(observe(), 2, noise=noise())[:, 1:]
    assert torch.equal(aligned.sample(observe(), 2, noise=noise()), expected)


def test_samples_are_in_the_units_of_the_data_and_the_network_sees_normalised_observations():
    policy, episodes, network = small_policy(), demonstrations(), Still()
    still = policy.with_network(network)
    lowest, highest = torch.as_tensor(episodes.actions.min(axis=0)), torch.as_tensor(episodes.actions.max(axis=0))
    for value, expected in ((-1, lowest), (0, (lowest + highest) / 2), (1, highest)):
        chunk = still.sample(observe(1), noise=torch.full((1, 8, 2), float(value)))
        torch.testing.assert_close(chunk, expected.expand(1, 8, 2))
    extremes = {
        key: torch.as_tensor(np.stack([values.min(axis=0), values.max(axis=0)]))[None]
        for key, values in episodes.observations.items()
    }
    still.sample(extremes)
    for key, seen in network.condition.items():
        expected = torch.tensor([-1.0, 1.0])[:, None].expand_as(extremes[key][0])
        torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 16])
def test_num_steps_counts_network_evaluations(num_steps):
    network = Still()
    small_policy().with_network(network).sample(observe(), num_steps)
    assert network.calls == num_steps


def test_the_noise_determines_the_sample():
    policy = small_policy()
    sample = policy.sample(observe(), 2, noise=noise())
    assert torch.equal(policy.sample(observe(), 2, noise=noise()), sample)
    assert torch.equal(policy.sample(observe(), 2, generator=torch.Generator().manual_seed(0)), sample)
    assert not torch.equal(policy.sample(observe(), 2, noise=noise(seed=1)), sample)
    assert not torch.equal(policy.sample(observe(seed=1), 2, noise=noise()), sample)
    numpy_observation = {key: value.double().numpy() for key, value in observe().items()}
    assert torch.equal(policy.sample(numpy_observation, 2, noise=noise()), sample)


def test_sampling_begins_with_the_noise_times_its_scale(tmp_path):
    usual, narrow = small_policy(), small_policy(noise_scale=0.75)
    assert torch.equal(narrow.sample(observe(), 2, noise=noise()), usual.sample(observe(), 2, noise=0.75 * noise()))
    certain = small_policy(noise_scale=0.0)
    assert torch.equal(certain.sample(observe(), 2, noise=noise()), certain.sample(observe(), 2, noise=noise(seed=1)))
    narrow.save_pretrained(tmp_path)
    assert Policy.from_pretrained(tmp_path).config.noise_scale == 0.75
    other = Policy.from_pretrained(tmp_path, noise_scale=1.0)
    assert torch.equal(other.sample(observe(), 2, noise=noise()), usual.sample(observe(), 2, noise=noise()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"angle": None}, "observation 'angle' is missing: .* position, angle"),
        ({"angle": torch.zeros(3, 2)}, r"'angle' must have shape \(B, 2, 1\), got \(3, 2\)"),
        ({"position": torch.zeros(3, 2, 3)}, r"'position' must have shape \(B, 2, 2\), got \(3, 2, 3\)"),
        ({"position": torch.zeros(3, 1, 2)}, r"'position' must have shape \(B, 2, 2\), got \(3, 1, 2\)"),
        ({"position": torch.zeros(4, 2, 2)}, r"same number of rows, got \{'position': 4, 'angle': 3\}"),
    ],
)
def test_observations_that_do_not_fit_are_quoted(changes, message):
    observation = {key: value for key, value in (observe() | changes).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        small_policy().sample(observation)


@pytest.mark.parametrize("shape", [(2, 8, 2), (3, 6, 2), (3, 8, 1)])
def test_noise_that_does_not_fit_is_quoted(shape):
    with pytest.raises(ValueError, match=rf"noise must have shape \(3, 8, 2\), got \({', '.join(map(str, shape))}\)"):
        small_policy().sample(observe(), noise=torch.zeros(shape))


def test_acting_executes_the_samples_chunk_by_chunk():
    policy = small_policy()
    stream = {key: value.flatten(0, 1) for key, value in observe(4).items()}  # 8 observations of one robot
    with torch.random.fork_rng():
        torch.manual_seed(0)
        actions = [policy.act({key: value[i : i + 1] for key, value in stream.items()}, 2) for i in range(8)]
        torch.manual_seed(0)
        for now in (0, 3, 6):
            history = [max(now - 1, 0), now]
            chunk = policy.sample({key: value[history][None] for key, value in stream.items()}, 2)
            for k, action in enumerate(actions[now : now + 3]):
                assert torch.equal(action, chunk[:, k])


def test_a_reset_begins_new_episodes_in_the_slots_of_its_mask():
    policy, asked = small_policy().with_network(Still()), []
    policy.sample = lambda history, steps, **_: asked.append(history["angle"][..., 0].tolist()) or torch.zeros(2, 8, 2)
    newest = {"position": torch.zeros(2, 2)}
    policy.act(newest | {"angle": torch.tensor([[1.0], [2.0]])})
    policy.reset(torch.tensor([False, True]))
    policy.act(newest | {"angle": torch.tensor([[3.0], [4.0]])})
    policy.reset()
    policy.act(newest | {"angle": torch.tensor([[5.0], [6.0]])})
    assert asked == [[[1, 1], [2, 2]], [[1, 3], [4, 4]], [[5, 5], [6, 6]]]


def test_acting_without_an_observation_is_refused():
    with pytest.raises(ValueError, match="observation 'angle' is missing"):
        small_policy().act({"position": torch.zeros(1, 2)})


def test_a_saved_policy_is_the_same_policy(tmp_path):
    policy = small_policy(action_offset=-1, metadata={"task": "a test"})
    policy.save_pretrained(tmp_path / "checkpoint")
    state = torch.get_rng_state()
    loaded = Policy.from_pretrained(tmp_path / "checkpoint")
    assert torch.equal(torch.get_rng_state(), state), "loading draws no global random number"
    assert loaded.config == policy.config
    assert torch.equal(loaded.sample(observe(), 2, noise=noise()), policy.sample(observe(), 2, noise=noise()))
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_other_weights_make_another_policy_with_the_same_normalizer():
    policy, other = small_policy(), small_policy(seed=1)
    before = policy.sample(observe(), noise=noise())
    policy.act({key: value[:, 0] for key, value in observe().items()})
    view = policy.with_network(other.network)
    assert torch.equal(view.sample(observe(), noise=noise()), other.sample(observe(), noise=noise()))
    assert torch.equal(policy.sample(observe(), noise=noise()), before)
    assert not torch.equal(before, view.sample(observe(), noise=noise()))
    assert view.normalizer is policy.normalizer
    assert view.act({key: value[:1, 0] for key, value in observe().items()}).shape == (1, 2), "a queue of its own"


@pytest.mark.parametrize("mask_padding", [False, True])
def test_batches_are_normalised_and_their_padding_is_masked_on_demand(mask_padding):
    policy, episodes = small_policy(mask_padding=mask_padding), demonstrations()
    windows = make_windows(episodes.episode_ends, observation_steps=2, horizon=8)
    rows = WindowBatches(episodes, windows, batch_size=26).windows(torch.arange(26))
    batch = policy.prepare(rows)
    assert batch.data.amin() == pytest.approx(-1)
    assert batch.data.amax() == pytest.approx(1)
    torch.testing.assert_close(policy.normalizer.action.inverse(batch.data), rows.action)
    assert batch.condition["angle"].shape == (26, 2, 1)
    assert batch.condition["angle"].abs().amax() == pytest.approx(1)
    assert torch.equal(batch.loss_mask, ~rows.action_is_pad) if mask_padding else batch.loss_mask is None


def test_a_seed_determines_the_weights_and_the_global_generator_is_left_alone():
    state = torch.get_rng_state()
    first, again, other = small_policy(0), small_policy(0), small_policy(1)
    assert torch.equal(torch.get_rng_state(), state)
    weights = [torch.cat([p.flatten() for p in policy.network.parameters()]) for policy in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_sizes_come_from_the_data_and_unknown_fields_are_refused():
    config = small_policy().config
    assert dict(config.observation_dims) == {"position": 2, "angle": 1}
    assert config.action_dim == 2
    with pytest.raises(ValueError, match="unknown option horizont"):
        small_policy(horizont=8)


class Renoising:
    """An objective whose sampler adds its step noise to the noise."""

    def sampler(self, num_steps):
        class Sampler:
            step_noises = num_steps - 1

            def __call__(self, predict, noise, step_noise=None):
                return noise + step_noise.sum(0)

        return Sampler()


def test_a_sampler_gets_the_noise_of_its_steps():
    policy = small_policy()
    policy.objective = Renoising()
    observation = {key: torch.zeros(2, 2, dim) for key, dim in policy.config.observation_dims.items()}
    noise, step_noise = torch.zeros(2, *policy.chunk_shape), torch.ones(2, 2, *policy.chunk_shape)
    given = policy.sample(observation, 3, noise=noise, step_noise=step_noise)
    torch.testing.assert_close(policy.normalizer.action(given), torch.full_like(noise, 2.0))
    drawn = [policy.sample(observation, 3, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_poses_are_sampled_as_the_environment_takes_them(tmp_path):
    """The network sees rot6d, left as it is; the environment rotation vectors, through a checkpoint as well."""
    codec = ActionCodec("absolute_pose")
    rotation = torch.tensor([3.0, 0.5, -0.2])  # nearly pi, as of a gripper that points down
    actions = torch.tensor([[0.1, 0.2, 0.9, *rotation, 1.0], [0.3, 0.4, 1.1, *rotation, -1.0]]).repeat(13, 1).numpy()
    episodes = replace(demonstrations(), actions=actions).encoded(codec)
    policy = small_policy(episodes=episodes)
    assert policy.chunk_shape == (8, 10)
    encoded = policy.normalizer.action(torch.as_tensor(episodes.actions[:2]))  # (2, 10)
    torch.testing.assert_close(encoded[:, 3:9], torch.as_tensor(episodes.actions[:2, 3:9]))
    torch.testing.assert_close(encoded[:, [0, 1, 2, 9]], torch.tensor([[-1.0] * 3 + [1.0], [1.0] * 3 + [-1.0]]))

    policy.save_pretrained(tmp_path / "policy")
    loaded = Policy.from_pretrained(tmp_path / "policy")
    assert loaded.config.action_codec == codec
    noise = encoded[:1].expand(8, 10)[None]
    chunk = loaded.with_network(Still()).sample(observe(1), noise=noise)
    torch.testing.assert_close(chunk[0, 0], torch.as_tensor(actions[0]), atol=1e-5, rtol=1e-5)
    stretched = noise * torch.tensor([1.0] * 3 + [1.7] * 6 + [1.0])  # what a network gives is no rotation
    torch.testing.assert_close(loaded.with_network(Still()).sample(observe(1), noise=stretched), chunk)
