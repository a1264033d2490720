"""The mixture in the plane, the distance to it, and the table of distances."""

import math

import pytest
import torch

from shortcut_policy.gaussian_mixture import GaussianRing, energy_distance
from shortcut_policy.mixture_results import MixtureResult, MixtureRow, mixture_table


def test_samples_lie_around_the_modes_with_variance_one():
    ring = GaussianRing(5, 0.1)
    points = ring.sample(100_000, torch.Generator().manual_seed(0)).double()
    torch.testing.assert_close(points.var(dim=0), torch.ones(2, dtype=torch.float64), rtol=0.02, atol=0)
    torch.testing.assert_close(points.mean(dim=0), torch.zeros(2, dtype=torch.float64), rtol=0, atol=0.01)
    angles = torch.arange(5, dtype=torch.float64) * 2 * math.pi / 5
    centres = math.sqrt(2 * (1 - 0.01)) * torch.stack([angles.cos(), angles.sin()], dim=1)
    distances, nearest = torch.cdist(points, centres).min(dim=1)
    assert distances.square().mean().item() == pytest.approx(2 * 0.01, rel=0.02)
    assert torch.bincount(nearest).tolist() == pytest.approx([20_000] * 5, rel=0.03)


def test_the_energy_distance_of_two_normals_is_the_closed_form():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(4000, 1, generator=generator), torch.randn(4000, 1, generator=generator) + 1.5

    def mean_absolute(mean):  # of a normal with that mean and variance 2
        return 2 / math.sqrt(math.pi) * math.exp(-(mean**2) / 4) + mean * math.erf(mean / 2)

    expected = 2 * mean_absolute(1.5) - 2 * mean_absolute(0.0)
    assert energy_distance(x, y) == pytest.approx(expected, rel=0.05)
    assert abs(energy_distance(x, y - 1.5)) < 5e-3


def test_the_energy_distance_is_without_bias():
    generator = torch.Generator().manual_seed(0)
    values = [energy_distance(*torch.randn(2, 20, 2, generator=generator)) for _ in range(400)]
    error = torch.tensor(values).std() / 20
    assert abs(sum(values) / 400) < 3 * error
    assert min(values) < 0 < max(values)


@pytest.mark.parametrize(("options", "quoted"), [({"modes": 1}, "1"), ({"deviation": 1.0}, "1.0")])
def test_wrong_options_are_quoted(options, quoted):
    with pytest.raises(ValueError, match=quoted):
        GaussianRing(**options)
    with pytest.raises(ValueError, match="got 1 and 3"):
        energy_distance(torch.zeros(1, 2), torch.zeros(3, 2))


def test_the_table_names_steps_cost_and_floor():
    row = MixtureRow(1, 1, 0.0123, (0.01, 0.0146), ((0.0, 1.0),))
    shared = {
        "options": {},
        "mixture": {},
        "network": "an MLP",
        "command": "",
        "commit": "",
        "hardware": "2 CPU cores",
        "versions": {},
    }
    shared |= {"updates": 8000, "batch_size": 256, "seeds": (0, 1), "count": 4096, "floor": 0.0004}
    results = [
        MixtureResult("", "flow_matching", evaluations=1.0, seconds=20.0, rows=(row,), **shared),
        MixtureResult("", "mean_flow", evaluations=1.25, seconds=30.0, rows=(row,), **shared),
    ]
    lines = mixture_table(results).splitlines()
    assert lines[0] == "| objective | 1 step | evaluations | time |"
    assert lines[2:4] == [
        "| flow matching | **12.3** [10.0, 14.6] | 1 | 1.0x |",
        "| MeanFlow | **12.3** [10.0, 14.6] | 1.25 | 1.5x |",
    ]
    assert "fresh samples themselves come to 0.4 at most" in lines[-1]
