"""A policy made ready to answer: the same chunks, from buffers that are allocated once."""

import numpy as np
import pytest
import torch
from small_policy import demonstrations, small_policy
from torch import nn

from shortcut_policy.data.episodes import Episodes
from shortcut_policy.realtime.compiled_policy import action_difference


def observe(rows=1, seed=0):
    rng = np.random.default_rng(seed)
    return {"position": rng.uniform(0, 512, (rows, 2, 2)), "angle": rng.uniform(-3, 3, (rows, 2, 1))}  # float64


def draw(shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("num_steps", "batch_size"), [(1, 1), (4, 3)])
def test_the_chunks_are_those_of_the_policy(num_steps, batch_size):
    policy = small_policy()
    compiled = policy.compile(num_steps=num_steps, batch_size=batch_size)
    noise = draw(compiled.noise_shape)
    assert noise.shape == (1, batch_size, 8, 2)
    chunk = compiled(observe(batch_size), noise)
    expected = policy.sample(observe(batch_size), num_steps, noise=noise[0])
    np.testing.assert_array_equal(chunk, expected.numpy())
    assert chunk.dtype == np.float32


@pytest.mark.parametrize(("precision", "difference"), [("fp32", 1e-3), ("bf16", 5.0)])  # px, of some hundreds
def test_inductor_computes_the_same(precision, difference):
    """With matrix products in the place of all convolutions, those that halve and double the length as well."""
    policy = small_policy(network={"name": "unet1d", "options": {"widths": [8, 8], "step_embedding_dim": 8}})
    state = torch.random.get_rng_state()
    compiled = policy.compile(mode="inductor", precision=precision)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(isinstance(module, nn.Conv1d | nn.ConvTranspose1d) for module in compiled.network.modules())
    assert not any(parameter.requires_grad for parameter in compiled.network.parameters())
    observations = {key: torch.from_numpy(values) for key, values in observe(4).items()}
    assert action_difference(policy, compiled, observations) < difference


def test_a_sampler_that_re_noises_gets_all_its_noise():
    policy = small_policy(objective={"name": "consistency_training"})
    compiled = policy.compile(num_steps=3)
    noise = draw(compiled.noise_shape)
    assert len(noise) == 3
    expected = policy.sample(observe(), 3, noise=noise[0], step_noise=noise[1:])
    np.testing.assert_array_equal(compiled(observe(), noise), expected.numpy())
    with pytest.raises(ValueError, match=r"noise must have shape \(3, 1, 8, 2\), got \(1, 1, 8, 2\)"):
        compiled(observe(), noise[:1])


def test_images_are_seen_as_the_policy_sees_them():
    low_dim, rng = demonstrations(), np.random.default_rng(1)
    images = rng.integers(256, size=(26, 10, 20, 3), dtype=np.uint8)
    episodes = Episodes({**low_dim.observations, "front": images}, low_dim.actions, low_dim.episode_ends, "a test")
    encoder = {"name": "small_cnn", "options": {"widths": [8], "keypoints": 2, "feature_dim": 4}}
    policy = small_policy(episodes=episodes, vision={"encoder": encoder, "crop": 0.8})
    compiled, noise = policy.compile(), draw((1, 1, 8, 2))
    observation = {**observe(), "front": images[None, :2]}
    expected = policy.sample(observation, noise=noise[0]).numpy()
    np.testing.assert_array_equal(compiled(observation, noise), expected)
    with pytest.raises(ValueError, match=r"observation 'front' must be uint8 in 0 ... 255, got torch.float32"):
        compiled({**observation, "front": images[None, :2].astype(np.float32)})


def test_answers_outlive_the_next_call_and_the_policy_may_go_on_learning():
    policy = small_policy()
    compiled, noise = policy.compile(), draw((1, 1, 8, 2))
    first = compiled(observe(), noise)
    kept = first.copy()
    with torch.no_grad():
        for parameter in policy.network.parameters():
            parameter.mul_(2)
    compiled(observe(seed=1), noise)
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_array_equal(compiled(observe(), noise), kept)
    assert all(parameter.requires_grad for parameter in policy.network.parameters())


def test_noise_is_drawn_from_the_seed_where_none_is_given():
    policy = small_policy()
    one, same, other = (policy.compile(seed=seed) for seed in (3, 3, 4))
    chunks = [one(observe()), one(observe())]
    np.testing.assert_array_equal([same(observe()), same(observe())], chunks)
    assert (chunks[0] != chunks[1]).any()
    assert (other(observe()) != chunks[0]).any()


def test_bf16_keeps_its_weights_in_half_the_bytes_and_its_difference_is_told():
    policy = small_policy()
    compiled = policy.compile(precision="bf16", batch_size=2)
    observations = {key: torch.from_numpy(values) for key, values in observe(6).items()}
    difference = action_difference(policy, compiled, observations)
    generator, squares = torch.Generator().manual_seed(0), []
    for first in (0, 2, 4):
        some = {key: values[first : first + 2] for key, values in observations.items()}
        noise = torch.randn(compiled.noise_shape, generator=generator)
        squares.append(np.square(policy.sample(some, noise=noise[0]).numpy() - compiled(some, noise)))
    assert difference == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-6)
    assert all(m.weight.dtype == torch.bfloat16 for m in compiled.network.modules() if isinstance(m, torch.nn.Linear))
    assert 1e-3 < difference < 10  # px
    with pytest.raises(ValueError, match="5 observations cannot be cut into batches of 2"):
        action_difference(policy, compiled, {key: values[:5] for key, values in observations.items()})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "fast"}, "mode must be one of eager, inductor, cuda_graph, got 'fast'"),
        ({"precision": "int4"}, "precision must be one of fp32, bf16, got 'int4'"),
        ({"batch_size": 0}, "batch_size must be positive, got 0"),
        ({"mode": "cuda_graph"}, "needs a GPU, and the policy is on cpu: say mode='inductor'"),
        ({"num_steps": 0}, "0"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small_policy().compile(**options)


def test_observations_that_do_not_fit_are_named():
    compiled = small_policy().compile()
    with pytest.raises(ValueError, match=r"observation 'angle' is missing: .* position, angle"):
        compiled({"position": observe()["position"]})
    with pytest.raises(ValueError, match=r"observation 'angle' must have shape \(1, 2, 1\), got \(3, 2, 1\)"):
        compiled({**observe(), "angle": observe(3)["angle"]})


def test_committed_actions_begin_the_chunk_and_are_forgotten_by_the_next_call():
    policy = small_policy(prefix_steps=3)
    compiled, noise = policy.compile(), draw((1, 1, 8, 2))
    plain = policy.sample(observe(), noise=noise[0]).numpy()
    np.testing.assert_array_equal(compiled(observe(), noise), plain)
    known = np.array([[[300.0, 310.0], [301.0, 311.0]]], np.float32)
    expected = policy.sample(observe(), noise=noise[0], known_actions=torch.from_numpy(known)).numpy()
    np.testing.assert_array_equal(compiled(observe(), noise, known), expected)
    assert (expected[:, 2:] != plain[:, 2:]).any()
    np.testing.assert_array_equal(compiled(observe(), noise), plain)
    with pytest.raises(ValueError, match=r"at most the shape \(1, 3, 2\), got \(1, 4, 2\)"):
        compiled(observe(), noise, np.zeros((1, 4, 2)))


def test_a_control_loop_asks_it_for_one_robot():
    policy = small_policy(prefix_steps=3)
    one, same = policy.compile(), policy.compile()
    history = {**{key: values[0] for key, values in observe().items()}, "unseen": np.zeros((2, 1))}
    committed = np.array([[300.0, 310.0]], np.float32)
    chunk = one.sample_chunk(history, committed)
    np.testing.assert_array_equal(chunk, same(observe(), known_actions=committed[None])[0])
    np.testing.assert_array_equal(chunk[0], committed[0])
    assert chunk.shape == (8, 2)
