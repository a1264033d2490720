import pytest
import torch
from networks import Recorder, bind


def point(rows=3):
    return torch.randn(rows, 4, 2), torch.rand(rows), torch.rand(rows)


def test_conditions_are_encoded_once_and_only_when_needed():
    network = Recorder()
    bound = bind(network, torch.rand(3))
    assert network.encoded == 0
    bound(*point())
    bound(*point())
    assert network.encoded == 1


def test_some_rows_see_their_own_conditions():
    network = Recorder()
    condition, (x, t, d), rows = torch.rand(3), point(), torch.tensor([2, 0])
    expected = bind(network, condition)(x, t, d)[rows]
    torch.testing.assert_close(bind(network, condition).rows(rows)(x[rows], t[rows], d[rows]), expected)


def test_guidance_is_the_extrapolation_in_one_forward_of_twice_the_rows():
    network = Recorder()
    condition, null, (x, t, d) = torch.rand(3), torch.zeros(3), point()
    conditional, unconditional = bind(network, condition)(x, t, d), bind(network, null)(x, t, d)
    network.calls.clear()
    guided = bind(network, condition, null).guided(1.5)(x, t, d)
    assert [len(call[0]) for call in network.calls] == [6]
    torch.testing.assert_close(guided, unconditional + 1.5 * (conditional - unconditional))
    per_row = bind(network, condition, null).guided(torch.tensor([0.0, 1.0, 2.0]))(x, t, d)
    torch.testing.assert_close(per_row[0], unconditional[0])
    torch.testing.assert_close(per_row[1], conditional[1])
    torch.testing.assert_close(per_row[2], 2 * conditional[2] - unconditional[2])


def test_dropped_rows_see_the_null_condition():
    network = Recorder()
    condition, null = {"a": torch.rand(3), "b": torch.rand(3, 5)}, {"a": torch.zeros(3), "b": torch.zeros(3, 5)}
    seen = bind(network, condition, null).drop(torch.tensor([True, False, True])).encoded()
    assert seen["a"].tolist() == [0.0, condition["a"][1], 0.0]
    assert torch.equal(seen["b"][1], condition["b"][1])
    assert not seen["b"][[0, 2]].any()


@pytest.mark.parametrize("use", [lambda b: b.guided(2.0), lambda b: b.drop(torch.ones(3, dtype=torch.bool))])
def test_guidance_without_a_null_condition_is_refused(use):
    with pytest.raises(ValueError, match="null condition"):
        use(bind(Recorder(), torch.rand(3)))
