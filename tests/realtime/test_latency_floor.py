import pytest
import torch
from torch import nn

from shortcut_policy.realtime.latency import times_in_turns
from shortcut_policy.realtime.latency_floor import count_kernels, empty_kernel_ms, read_ms, weight_bytes

CPU = torch.device("cpu")


def test_bytes_are_those_of_the_parameters_in_their_precision():
    network = nn.Linear(3, 5)
    assert weight_bytes(network) == 4 * (15 + 5)
    assert weight_bytes(network.to(torch.bfloat16)) == 2 * (15 + 5)


def test_operations_that_compute_are_counted_and_views_are_not():
    x = torch.ones(4, 4)
    assert count_kernels(lambda: x.add(1).relu(), CPU) == 2
    assert count_kernels(lambda: x.t().reshape(2, 8)[0], CPU) == 1, "the reshape of a transposed matrix copies"
    assert count_kernels(lambda: x.view(2, 8)[0].t(), CPU) == 0


def test_more_bytes_take_longer_to_read_and_kernels_take_time():
    assert read_ms(400_000_000, CPU) > read_ms(4_000_000, CPU) > 0
    assert 0 < empty_kernel_ms(CPU) < 10


def test_functions_take_turns_and_some_are_called_less_often():
    called = []
    calls = {name: lambda name=name: called.append(name) for name in "ab"}
    times = times_in_turns(calls, rounds=5, every={"a": 1, "b": 2}, warm_up=1)
    assert "".join(called) == "ab" + "ab" + "a" + "ab" + "a" + "ab"
    assert {name: len(values) for name, values in times.items()} == {"a": 5, "b": 3}
    assert all((values >= 0).all() for values in times.values())


def test_a_turn_may_be_several_calls():
    called = []
    calls = {name: lambda name=name: called.append(name) for name in "ab"}
    times = times_in_turns(calls, rounds=6, every={"a": 1, "b": 2}, warm_up=0, in_a_row=2)
    assert "".join(called) == "aabb" + "aa" + "aabb"
    assert {name: len(values) for name, values in times.items()} == {"a": 6, "b": 4}


def test_reading_nothing_is_no_error():
    assert read_ms(0, CPU) == pytest.approx(0, abs=10)
