import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from shortcut_policy.data.episodes import Episodes
from shortcut_policy.data.normalizer import NORMALIZATIONS, LinearNormalizer, Normalizer

VALUES = np.array([[0, 10], [2, 40], [4, 40], [2, 30]], np.float32)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("limits", [[-1, -1], [0, 1], [1, 1], [0, 1 / 3]]),
        ("gaussian", [[-(2**0.5), -20 / 150**0.5], [0, 10 / 150**0.5], [2**0.5, 10 / 150**0.5], [0, 0]]),
        ("identity", VALUES),
    ],
)
def test_known_answers(mode, expected):
    normalizer = LinearNormalizer.fit(VALUES, mode)
    torch.testing.assert_close(normalizer(torch.from_numpy(VALUES)), torch.as_tensor(np.float32(expected)))
    chunk = torch.from_numpy(VALUES).expand(3, 4, 2)
    assert torch.equal(normalizer(chunk)[1], normalizer(torch.from_numpy(VALUES))), "the last axis is the channel"


@pytest.mark.parametrize("mode", ["limits", "gaussian"])
@pytest.mark.parametrize("constant", [0.0, 7.0, -1e4])
def test_a_constant_channel_is_only_shifted_to_zero(mode, constant):
    rounding = constant + np.array([0, 1, 0, -1]) * np.spacing(np.float32(constant))
    for column in (np.full(4, constant), rounding):
        normalizer = LinearNormalizer.fit(np.stack([column, VALUES[:, 0]], axis=1).astype(np.float32), mode)
        assert normalizer.scale[0] == 1
        normalized = normalizer(torch.tensor([[constant, 0.0], [constant + 2, 0.0]]))[:, 0]
        torch.testing.assert_close(normalized, torch.tensor([0.0, 2.0]), rtol=0, atol=2e-3)


def test_a_tiny_range_far_from_zero_still_fills_the_limits():
    values = (1000 + np.linspace(0, 0.1, 11))[:, None].astype(np.float32)
    normalized = LinearNormalizer.fit(values)(torch.from_numpy(values))
    expected = torch.linspace(-1, 1, 11)[:, None]
    torch.testing.assert_close(normalized, expected, rtol=0, atol=5e-3)  # values are rounded to 6e-5, 1e-3 of the range


@settings(deadline=None)
@given(
    mode=st.sampled_from(NORMALIZATIONS),
    offset=st.floats(-1e3, 1e3),
    spread=st.floats(0.0, 1e3),
    seed=st.integers(0, 9),
)
def test_inverse_undoes_forward(mode, offset, spread, seed):
    values = (offset + spread * np.random.default_rng(seed).standard_normal((20, 3))).astype(np.float32)
    normalizer, tensor = LinearNormalizer.fit(values, mode), torch.from_numpy(values)
    largest = float(np.abs(values).max())
    torch.testing.assert_close(normalizer.inverse(normalizer(tensor)), tensor, rtol=0, atol=1e-6 * max(1.0, largest))


def test_an_unknown_mode_is_quoted():
    with pytest.raises(ValueError, match="one of limits, gaussian, identity, got 'range'"):
        LinearNormalizer.fit(VALUES, "range")


def fitted():
    observations = {"position": VALUES, "angle": VALUES[:, 1:] / 10}
    return Normalizer.fit(Episodes(observations, VALUES[:, :1] + 1, np.array([4]), "a test"))


def test_every_observation_and_the_action_get_their_own_limits():
    normalizer = fitted()
    observation = {
        "position": torch.tensor([4.0, 10.0]),
        "angle": torch.tensor([[1.0], [4.0]]),
        "unknown": torch.zeros(1),
    }
    normalized = normalizer.normalize_observation(observation)
    assert {key: value.tolist() for key, value in normalized.items()} == {
        "position": [pytest.approx(1), pytest.approx(-1)],
        "angle": [[pytest.approx(-1)], [pytest.approx(1)]],
    }
    assert normalizer.action(torch.tensor([1.0, 3.0, 5.0])[:, None]).flatten().tolist() == pytest.approx([-1, 0, 1])


def test_a_state_dict_carries_everything():
    normalizer, other = fitted(), Normalizer({"position": 2, "angle": 1}, 1)
    before = other.action(torch.tensor([5.0]))
    assert before.tolist() == [5.0], "a fresh normalizer is the identity"
    other.load_state_dict(normalizer.state_dict())
    for name, value in normalizer.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    assert other.action(torch.tensor([5.0])).tolist() == pytest.approx([1.0])
    assert not list(normalizer.parameters()), "nothing of it is trained"


@pytest.mark.parametrize("key", ["observation.state", "type", ""])
def test_keys_that_cannot_name_a_module_are_quoted(key):
    with pytest.raises(ValueError, match=repr(key)):
        Normalizer({key: 2}, 2)


def test_far_from_zero_no_digits_are_lost():
    values = 1e4 + np.random.default_rng(0).uniform(-0.05, 0.05, (100, 1))
    normalizer = LinearNormalizer.fit(values)
    seen = values.astype(np.float32)
    exact = (seen.astype(np.float64) - normalizer.centre.numpy()) * normalizer.scale.numpy()
    np.testing.assert_allclose(normalizer(torch.from_numpy(seen)).numpy(), exact, atol=1e-6)
