"""The transformer over the steps of a chunk."""

import pytest
import torch
from networks import bind
from torch import nn
from torch.nn import functional

from shortcut_policy.core.objectives.base import Batch, Networks
from shortcut_policy.core.objectives.mean_flow import MeanFlow
from shortcut_policy.nn.observation_encoder import ObservationEncoder
from shortcut_policy.nn.policy_network import PolicyNetwork
from shortcut_policy.nn.transformer import ActionTransformer

SMALL = {"width": 8, "depth": 2, "heads": 2, "step_embedding_dim": 8}


def make(horizon=6, **options):
    torch.manual_seed(0)
    network = ActionTransformer(2, horizon, 3, **SMALL | options).double()
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return network


def inputs(rows=4, horizon=6):
    """d = 0 stands beside a step size, so that both ways of embedding it are used."""
    generator = torch.Generator().manual_seed(1)
    return {
        "x": torch.randn(rows, horizon, 2, generator=generator).double(),
        "t": torch.rand(rows, generator=generator).double(),
        "d": torch.tensor([0.0, 0.5] * (rows // 2)).double(),
        "condition": torch.randn(rows, 3, generator=generator).double(),
    }


def test_it_predicts_nothing_at_first():
    torch.manual_seed(0)
    assert not ActionTransformer(2, 6, 3, **SMALL).double()(**inputs()).any()


def test_it_is_its_blocks_one_after_the_other():
    network, given = make(), inputs()
    step = torch.cat([network.embedding(given["t"], given["d"]), given["condition"]], dim=1)
    first, last = network.condition[0], network.condition[2]
    condition = functional.silu(last(functional.silu(first(step))))
    h = given["x"] @ network.input.weight.T + network.input.bias + network.position
    for block in network.blocks:
        h = block(h, condition)
    shift, scale = network.modulation(condition).chunk(2, dim=1)
    normal = (h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
    expected = network.output(normal * (1 + scale[:, None]) + shift[:, None])
    torch.testing.assert_close(network(**given), expected)


def test_every_step_of_the_chunk_sees_all_others_and_knows_its_place():
    network, given = make(), inputs()
    before = network(**given)
    given["x"][0, 5] += 0.25
    assert ((network(**given) - before)[0].abs().amax(-1) > 1e-5).all()
    same = given | {"x": torch.ones_like(given["x"])}
    assert (network(**same)[0].std(dim=0) > 1e-5).all()


@pytest.mark.parametrize("name", ["x", "t", "d", "condition"])
def test_output_depends_on_every_input_of_its_row_and_on_no_other_row(name):
    network, given = make(), inputs()
    before = network(**given)
    given[name][1] += 0.25
    after = network(**given)
    assert (after[1] - before[1]).abs().max() > 1e-5
    torch.testing.assert_close(after[[0, 2, 3]], before[[0, 2, 3]])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"heads": 3}, "heads=3 must divide width=8"),
        ({"depth": 0}, "got 6, 8, 0, 2 and 4.0"),
        ({"horizon": 0}, "got 0, 8"),
        ({"mlp_ratio": 0.0}, "2 and 0.0"),
    ],
)
def test_sizes_that_do_not_fit_are_quoted(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)
    with pytest.raises(ValueError, match="horizon of 6, got 7"):
        make()(**inputs(horizon=7))


def test_mean_flow_differentiates_it():
    network = PolicyNetwork(ObservationEncoder({"state": 3}, 1), 2, 6, "transformer", SMALL).double()
    nn.init.normal_(network.head.output.weight)
    given = inputs()
    condition = {"state": given["condition"][:, None]}
    objective = MeanFlow()
    draw = objective.draw(given["x"].shape, 0.0, torch.Generator().manual_seed(0))
    draw = type(draw)(draw.noise.double(), draw.t.double(), draw.d.double(), None, draw.averages)
    loss = objective.loss(Networks(bind(network, condition)), Batch(given["x"], condition), draw)
    loss.per_row.mean().backward()
    assert network.head.input.weight.grad.abs().max() > 0
