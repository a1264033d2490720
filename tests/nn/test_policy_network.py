import pytest
import torch

from shortcut_policy.nn.observation_encoder import ObservationEncoder
from shortcut_policy.nn.policy_network import ACTION_HEADS, PolicyNetwork


def make(**changes):
    arguments = {
        "encoder": ObservationEncoder({"position": 2, "angle": 1}, steps=2),
        "action_dim": 2,
        "horizon": 8,
        "options": {"widths": (8, 16), "step_embedding_dim": 8},
    }
    return PolicyNetwork(**arguments | changes)


def test_the_head_sees_the_encoded_observation():
    network = make()
    observation = {"angle": torch.randn(3, 2, 1), "position": torch.randn(3, 2, 2)}
    x, t, d = torch.randn(3, 8, 2), torch.rand(3), torch.rand(3)
    encoded = torch.cat([observation["position"], observation["angle"]], dim=-1).reshape(3, 6)
    assert torch.equal(network.encode(observation), encoded)
    assert torch.equal(network(x, t, d, network.encode(observation)), network.head(x, t, d, encoded))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": "unet"}, "unknown network 'unet': known are unet1d"),
        ({"options": {"width": [8]}}, "network 'unet1d': .*'width'"),
        ({"options": {"horizon": 8}}, "network 'unet1d': .*'horizon'"),
        ({"horizon": 15}, "got 15"),
    ],
)
def test_unknown_heads_options_and_sizes_are_quoted(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def continuing(head=None, **changes):
    network = make(given_actions=True, **changes)
    if head is not None:
        network.head = head
    return network


class Answering(torch.nn.Module):
    """A head with a known answer: what it is given, weighed by the mask."""

    def forward(self, x, t, d, condition):
        return x[..., :-1] + 10 * x[..., -1:] + condition[:, None, :1]


def test_given_actions_stand_in_the_place_of_x_and_the_mask_beside_them():
    network = continuing(Answering())
    observation = {"angle": torch.zeros(2, 2, 1), "position": torch.tensor([5.0, 7.0]).reshape(2, 1, 1).expand(2, 2, 2)}
    given = torch.arange(32.0).reshape(2, 8, 2)
    mask = torch.tensor([[True, True, *[False] * 6], [False] * 8])
    encoded = network.encode({**observation, "known_actions": given, "known_mask": mask})
    x = -torch.ones(2, 8, 2)
    answer = network(x, torch.zeros(2), torch.zeros(2), encoded)
    expected = torch.full((2, 8, 2), -1.0)
    expected[0, :2] = torch.tensor([[10.0, 11.0], [12.0, 13.0]])  # 0, 1, 2, 3 are given, plus 10 for the mask
    assert torch.equal(answer, expected + torch.tensor([5.0, 7.0]).reshape(2, 1, 1))
    x[0, :2] = 99.0
    assert torch.equal(network(x, torch.zeros(2), torch.zeros(2), encoded), answer), "x does not count there"


def test_names_of_given_actions_are_not_those_of_observations():
    encoder = ObservationEncoder({"known_actions": 2}, steps=2)
    with pytest.raises(ValueError, match="observation 'known_actions' has a name that prefix_steps needs"):
        make(encoder=encoder, given_actions=True)
    make(encoder=encoder)


@pytest.mark.parametrize("head", ["unet1d", "transformer"])
def test_heads_without_given_actions_are_what_they_were(head):
    """The same weights from the same seed, as many channels, the same answer."""
    options = {"widths": (8, 16)} if head == "unet1d" else {"width": 8, "depth": 1, "heads": 2}
    torch.manual_seed(0)
    network = make(head=head, options=options)
    torch.manual_seed(0)
    alone = ACTION_HEADS[head](2, 8, 6, **options)
    assert network.head.state_dict().keys() == alone.state_dict().keys()
    assert all(torch.equal(value, network.head.state_dict()[key]) for key, value in alone.state_dict().items())
    x, t, d, encoded = torch.randn(3, 8, 2), torch.rand(3), torch.rand(3), torch.randn(3, 6)
    assert torch.equal(network(x, t, d, encoded), alone(x, t, d, encoded))
    assert make(head=head, options=options, given_actions=True)(
        x, t, d, {"observation": encoded, "known_actions": x, "known_mask": x[..., 0] > 0}
    ).shape == (3, 8, 2)
