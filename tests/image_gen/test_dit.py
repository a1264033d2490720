"""The diffusion transformer against explicit computations in float64."""

import numpy as np
import pytest
import torch
from networks import bind

from image_gen.dit import DiT, position_embedding
from shortcut_policy.core.objectives.base import Batch, Networks
from shortcut_policy.core.objectives.mean_flow import MeanFlow

SMALL = {"patch": 2, "width": 16, "depth": 2, "heads": 2}


def make_dit(**options):
    """A small network whose zero-initialised layers are random, so that everything has an effect."""
    torch.manual_seed(0)
    network = DiT(3, 8, 5, **SMALL | options).double()
    for parameter in network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.2)
    return network


def inputs(rows=4):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(rows, 3, 8, 8, generator=generator).double()
    t, d = (torch.rand(rows, generator=generator).double() for _ in range(2))
    return x, t, d, torch.arange(rows) % 6


def test_positions_are_the_sinusoids_of_column_and_row():
    embedding = position_embedding(8, 3)
    for row in range(3):
        for column in range(3):
            line = [
                [function(place / 10_000 ** (i / 2)) for function in (np.sin, np.cos) for i in (0, 1)]
                for place in (column, row)
            ]
            expected = [*line[0], *line[1]]
            np.testing.assert_allclose(embedding[3 * row + column], expected, atol=1e-6)


def test_a_new_network_predicts_zero_and_every_input_matters_later():
    x, t, d, labels = inputs()
    fresh = DiT(3, 8, 5, **SMALL).double()
    assert not fresh(x, t, d, fresh.encode(labels)).any()
    network = make_dit()
    output = network(x, t, d, network.encode(labels))
    assert output.shape == x.shape
    for changed in ((x + 0.1, t, d, labels), (x, t + 0.1, d, labels), (x, t, d / 2, labels), (x, t, d, 5 - labels)):
        assert not torch.allclose(network(*changed[:3], network.encode(changed[3])), output)
    assert not torch.allclose(network(x, t, 0 * d, network.encode(labels)), output)


def test_patches_lie_where_their_pixels_do():
    network = make_dit(depth=1)
    with torch.no_grad():
        for block in network.blocks:  # tokens no longer talk to each other
            torch.nn.init.zeros_(block.attention.output.weight)
    x, t, d, labels = inputs(1)
    changed = x.clone()
    changed[0, :, 2:4, 6:8] += 1.0
    difference = network(changed, t, d, network.encode(labels)) - network(x, t, d, network.encode(labels))
    touched = difference[0].abs().sum(dim=0) > 1e-9
    assert touched[2:4, 6:8].all()
    touched[2:4, 6:8] = False
    assert not touched.any()


def test_activation_checkpointing_changes_no_gradient():
    gradients = []
    for checkpointing in (False, True):
        network = make_dit(checkpointing=checkpointing)
        x, t, d, labels = inputs()
        network(x, t, d, network.encode(labels)).square().mean().backward()
        gradients.append([p.grad for p in network.parameters() if p.grad is not None])
    for one, two in zip(*gradients, strict=True):
        torch.testing.assert_close(one, two)


def test_mean_flow_differentiates_it():
    network, objective = make_dit(), MeanFlow(average_fraction=0.5, weight_power=0.0)
    draw = objective.draw(torch.Size((8, 3, 8, 8)), 0.0, torch.Generator().manual_seed(0))
    draw = type(draw)(draw.noise.double(), draw.t.double(), draw.d.double(), None, draw.averages)
    data, labels = torch.randn(8, 3, 8, 8).double(), torch.arange(8) % 5
    loss = objective.loss(Networks(bind(network, labels)), Batch(data, labels), draw).per_row
    x_t, v = torch.lerp(draw.noise, data, draw.t[:, None, None, None]), data - draw.noise
    with torch.no_grad():
        s, step = bind(network, labels), 1e-6
        back, forth = (s(x_t + h * v, draw.t + h, draw.d - h) for h in (-step, step))
        slope = torch.where(draw.averages[:, None, None, None], (forth - back) / (2 * step), 0.0)
        target = v + draw.d[:, None, None, None] * slope
        expected = (s(x_t, draw.t, draw.d) - target).square().flatten(1).mean(dim=1)
    torch.testing.assert_close(loss.detach(), expected, rtol=1e-5, atol=1e-7)
    loss.mean().backward()
    assert network.patches.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("options", "quoted"),
    [({"patch": 3}, "patch=3"), ({"heads": 3}, "heads=3"), ({"width": 18}, "18"), ({"depth": 0}, " 0,")],
)
def test_sizes_that_do_not_fit_are_quoted(options, quoted):
    with pytest.raises(ValueError, match=quoted):
        DiT(3, 8, 5, **SMALL | options)
