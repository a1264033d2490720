import numpy as np
import pytest
import torch
from torch import nn

from shortcut_policy.training.config import EmaConfig
from shortcut_policy.training.ema import Ema


@pytest.mark.parametrize("config", [EmaConfig(0.9, 0.0), EmaConfig(0.9, 0.75)])
def test_average_is_the_recursion(config):
    network = nn.Linear(3, 2).double()
    ema = Ema(network, config)
    expected = network.weight.detach().numpy().copy()
    for n in range(50):
        with torch.no_grad():
            network.weight += torch.randn_like(network.weight)
        decay = config.decay if config.warmup_power == 0 else min(0.9, 1 - (1 + n) ** -0.75)
        expected = decay * expected + (1 - decay) * network.weight.detach().numpy()
        ema.update(network)
    np.testing.assert_allclose(ema.module.weight.numpy(), expected, rtol=1e-12)
    assert ema.updates == 50


def test_warm_up_begins_as_a_copy_and_ends_at_the_decay():
    network = nn.Linear(3, 2)
    ema = Ema(network, EmaConfig(0.99, 0.75))
    with torch.no_grad():
        network.weight += 1
    ema.update(network)
    assert torch.equal(ema.module.weight, network.weight)
    ema.updates = 10_000
    assert ema.decay() == 0.99


def test_average_is_frozen_and_follows_buffers():
    network = nn.BatchNorm1d(2)
    ema = Ema(network, EmaConfig())
    network(torch.randn(8, 2))
    ema.update(network)
    assert torch.equal(ema.module.running_mean, network.running_mean)
    assert not any(p.requires_grad for p in ema.module.parameters())
    assert not ema.module.training


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_decay_out_of_range_is_refused(decay):
    with pytest.raises(ValueError, match=str(decay)):
        EmaConfig(decay)
