import pytest
import torch

from shortcut_policy.nn.observation_encoder import ObservationEncoder
from shortcut_policy.nn.policy_network import PolicyNetwork


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
