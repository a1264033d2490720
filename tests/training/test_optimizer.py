import pytest
from torch import nn

from shortcut_policy.training.config import TrainerConfig
from shortcut_policy.training.optimizer import learning_rate, make_optimizer
from shortcut_policy.training.seeding import derive_seed


def test_learning_rate_rises_linearly_and_falls_by_a_cosine():
    config = TrainerConfig(steps=110, learning_rate=1.0, final_learning_rate=0.2, warmup_steps=10)
    rates = [learning_rate(step, 110, config) for step in range(110)]
    assert rates[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.6)
    assert rates[-1] == pytest.approx(0.2, abs=1e-3)
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_a_short_phase_warms_up_for_a_quarter_of_its_length():
    config = TrainerConfig(steps=1000, learning_rate=1.0, warmup_steps=500)
    rates = [learning_rate(step, 40, config) for step in range(40)]
    assert rates[:11] == pytest.approx([*(0.1 * (i + 1) for i in range(10)), 1.0])
    assert rates[-1] < 0.01


def test_only_matrices_are_decayed():
    network = nn.Sequential(nn.Linear(3, 2), nn.GroupNorm(1, 2), nn.Conv1d(2, 2, 1))
    decayed, rest = make_optimizer(network, TrainerConfig(steps=1, weight_decay=0.5)).param_groups
    assert {id(p) for p in decayed["params"]} == {id(network[0].weight), id(network[2].weight)}
    assert decayed["weight_decay"] == 0.5
    assert rest["weight_decay"] == 0.0


def test_seeds_are_a_function_of_all_their_parts():
    seeds = {derive_seed(seed, what, step) for seed in range(3) for what in ("draw", "data") for step in range(50)}
    assert len(seeds) == 300
    assert derive_seed(0, "draw", 12) == derive_seed(0, "draw", 12)
    assert derive_seed(1, 23) != derive_seed(12, 3)
    assert all(0 <= seed < 2**63 for seed in seeds)
