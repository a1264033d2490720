"""Weights divided among processes: which modules are, and that policies learn the same as with whole ones."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from policies import NETWORKS, seeing_policy, train
from safetensors.torch import load_file
from torch import nn
from torch.distributed.fsdp import FSDPModule

from shortcut_policy.training.distributed import Processes
from shortcut_policy.training.sharding import shard

TESTS = Path(__file__).parents[1]
ALONE = Processes(0, 1, torch.device("cpu"))
SHIFT = "network.encoder.images.front.layers.3.maps.bias"
"""What the softmax takes off again: its gradient is rounding, which AdamW scales up."""


@pytest.fixture
def group_of_one():
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield ALONE
    dist.destroy_process_group()


@pytest.mark.parametrize("name", NETWORKS)
def test_parts_of_lists_are_divided_one_by_one(group_of_one, name):
    network = seeing_policy(name).network
    shard(network, group_of_one)
    divided = {path for path, module in network.named_modules() if isinstance(module, FSDPModule)}
    if name == "transformer":
        assert divided == {"", "head.blocks.0", "head.blocks.1"}
        return
    stages = [*(f"head.down.{stage}" for stage in range(3)), *(f"head.up.{stage}" for stage in range(2)), "head.middle"]
    samplers = {f"head.{way}.{stage}" for way in ("downsample", "upsample") for stage in range(2)}
    assert divided == {""} | samplers | {f"{stage}.{block}" for stage in stages for block in range(2)}


def test_a_list_in_a_part_of_a_list_is_divided_first(group_of_one):
    class Stage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
            self.norm = nn.LayerNorm(2)

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return self.norm(x)

    network = nn.Sequential()
    network.stages = nn.ModuleList([Stage()])
    network.forward = lambda x: network.stages[0](x)
    torch.manual_seed(0)
    x = torch.randn(3, 2)
    before = network(x)
    shard(network, group_of_one)
    assert all(isinstance(module, FSDPModule) for module in (network.stages[0], *network.stages[0].layers))
    torch.testing.assert_close(network(x), before)


def test_policies_learn_the_same_from_divided_weights(tmp_path):
    for name in NETWORKS:
        train(name, tmp_path / "one", ALONE)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, str(TESTS / "training" / "policies.py"), str(tmp_path / "two")],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(TESTS / "core")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    for name in NETWORKS:
        initial = seeing_policy(name).state_dict()
        one, two = (load_file(tmp_path / run / name / "checkpoints/last/model.safetensors") for run in ("one", "two"))
        assert one.keys() == two.keys()
        for key in one.keys() - {SHIFT}:
            torch.testing.assert_close(one[key], two[key], rtol=1e-4, atol=2e-5)
            assert key.startswith("normalizer.") or not torch.equal(one[key], initial[key]), f"{key} learns"
        logs = [(tmp_path / run / name / "metrics.jsonl").read_text().splitlines() for run in ("one", "two")]
        for line, other in zip(*(map(json.loads, log) for log in logs), strict=True):
            for value in ("train/loss", "train/gradient_norm"):
                assert other[value] == pytest.approx(line[value], rel=1e-3)
