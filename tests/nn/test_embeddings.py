import numpy as np
import pytest
import torch

from shortcut_policy.nn.embeddings import SinusoidalEmbedding, StepSizeEmbedding, TimeStepEmbedding


def sinusoids(values, dim, scale=1.0, max_period=10_000.0):
    """The formula in float64: half cosines, half sines of value / max_period^(2i/dim)."""
    angles = scale * np.float64(values)[:, None] / max_period ** (2 * np.arange(dim // 2) / dim)
    return torch.from_numpy(np.concatenate([np.cos(angles), np.sin(angles)], axis=1))


@pytest.mark.parametrize(
    ("dim", "scale", "max_period"), [(2, 1.0, 1e4), (32, 1.0, 1e4), (256, 100.0, 1e4), (6, 3.0, 50)]
)
def test_sinusoids_follow_the_formula(dim, scale, max_period):
    values = np.linspace(0, 1, 129)
    for given in (torch.float64, torch.float32, torch.bfloat16):
        rounded = torch.from_numpy(values).to(given)
        embedded = SinusoidalEmbedding(dim, scale, max_period)(rounded)
        assert embedded.dtype == torch.promote_types(given, torch.float32)
        wanted = sinusoids(rounded.double().numpy(), dim, scale, max_period)
        torch.testing.assert_close(embedded.double(), wanted, rtol=0, atol=2e-5)


@pytest.mark.parametrize("dim", [0, -2, 7])
def test_odd_dimensions_are_refused(dim):
    with pytest.raises(ValueError, match=f"even and positive, got {dim}"):
        SinusoidalEmbedding(dim)


def test_a_step_size_is_embedded_by_its_level_on_and_off_the_grid():
    levels = np.array([0.0, 1.0, 2.0, 2.5, 7.0])
    embedded = StepSizeEmbedding(16)(torch.from_numpy(2.0**-levels))
    torch.testing.assert_close(embedded.double(), sinusoids(levels, 16), rtol=0, atol=1e-6)


def test_step_size_zero_has_a_learned_slot_of_its_own():
    embedding = StepSizeEmbedding(16)
    embedded = embedding(torch.tensor([0.0, 1.0, 1 / 128, 0.0]))
    assert torch.equal(embedded[0], embedding.zero)
    assert torch.equal(embedded[3], embedding.zero)
    assert torch.cdist(embedded[:1], StepSizeEmbedding(16)(2.0 ** -torch.arange(8))).min() > 0.1
    embedded[1:].sum().backward()
    assert torch.equal(embedding.zero.grad, torch.ones(16)), "only the row with d = 0 reaches the slot"


def test_no_gradient_is_lost_at_step_size_zero():
    d = torch.tensor([0.0, 0.25], requires_grad=True)
    StepSizeEmbedding(8)(d).square().sum().backward()
    assert d.grad.isfinite().all()


def test_time_and_step_size_are_embedded_apart_and_added():
    embedding = TimeStepEmbedding(8)
    t, d = torch.tensor([0.2, 0.2, 0.7, 0.7]), torch.tensor([0.0, 0.5, 0.0, 0.5])
    a, b, c, e = embedding(t, d)
    assert (a - b).abs().max() > 1e-3, "depends on d"
    assert (a - c).abs().max() > 1e-3, "depends on t"
    torch.testing.assert_close(a + e, b + c)
    torch.testing.assert_close(embedding.time[0](t).double(), sinusoids(t, 8, scale=100.0), rtol=0, atol=2e-5)
