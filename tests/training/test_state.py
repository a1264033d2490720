import pytest
import torch
from torch import nn

from shortcut_policy.training.config import TrainerConfig
from shortcut_policy.training.optimizer import make_optimizer
from shortcut_policy.training.state import Progress, load_state, save_state

CONFIG = TrainerConfig(steps=10, weight_decay=0.1)


def trained(seed):
    torch.manual_seed(seed)
    network = nn.Linear(3, 2)
    optimizer = make_optimizer(network, CONFIG)
    for _ in range(3):
        network(torch.randn(4, 3)).square().mean().backward()
        optimizer.step()
    return network, optimizer


def test_network_optimizer_and_progress_come_back(tmp_path):
    network, optimizer = trained(0)
    save_state(tmp_path / "state", Progress(7, [7, 7], 0.5, 1.25), {"network": network}, optimizer)
    other, other_optimizer = trained(1)
    progress = load_state(tmp_path / "state", {"network": other}, other_optimizer)
    assert progress == Progress(7, [7, 7], 0.5, 1.25)
    x = torch.randn(4, 3)
    for net, opt in ((network, optimizer), (other, other_optimizer)):
        opt.zero_grad()
        net(x).square().mean().backward()
        opt.step()
    assert torch.equal(network.weight, other.weight)
    assert torch.equal(network.bias, other.bias)


@pytest.mark.parametrize("file", ["tensors.safetensors", "progress.json"])
def test_damaged_files_are_named(tmp_path, file):
    network, optimizer = trained(0)
    save_state(tmp_path / "state", Progress(7), {"network": network}, optimizer)
    path = tmp_path / "state" / file
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match="cannot be resumed from"):
        load_state(tmp_path / "state", {"network": network}, optimizer)


def test_another_network_is_refused(tmp_path):
    network, optimizer = trained(0)
    save_state(tmp_path / "state", Progress(7), {"network": network}, optimizer)
    with pytest.raises(ValueError, match="cannot be resumed from"):
        load_state(tmp_path / "state", {"network": nn.Linear(5, 2)}, optimizer)


def test_a_tensor_too_many_or_of_another_height_is_refused(tmp_path):
    network, optimizer = trained(0)
    save_state(tmp_path / "state", Progress(7), {"network": network, "ema": network}, optimizer)
    with pytest.raises(ValueError, match=r"ema/bias"):
        load_state(tmp_path / "state", {"network": network}, optimizer)
    with pytest.raises(ValueError, match=r"has 2 rows there and 5 here"):
        load_state(
            tmp_path / "state", {"network": nn.Linear(3, 5), "ema": network}, make_optimizer(nn.Linear(3, 5), CONFIG)
        )
