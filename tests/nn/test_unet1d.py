import pytest
import torch
from torch import nn
from torch.nn import functional as F

from shortcut_policy.nn.unet1d import ResidualBlock, Unet1d


def make(widths=(8, 16), horizon=8, **options):
    torch.manual_seed(0)
    return Unet1d(2, horizon, 3, widths, step_embedding_dim=8, **options)


def inputs(rows=4, horizon=8):
    """d = 0 stands beside a step size, so that both ways of embedding it are used."""
    generator = torch.Generator().manual_seed(1)
    return {
        "x": torch.randn(rows, horizon, 2, generator=generator),
        "t": torch.rand(rows, generator=generator),
        "d": torch.tensor([0.0, 0.5] * (rows // 2)),
        "condition": torch.randn(rows, 3, generator=generator),
    }


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_without_the_step_size_it_is_diffusion_policys_network():
    """Diffusion Policy's Push-T notebook (5 state values, 2 observations) prints 6.535322e+07 parameters."""
    with torch.device("meta"):
        network = Unet1d(action_dim=2, horizon=16, condition_dim=10, widths=[256, 512, 1024])
    assert count(network) - count(network.embedding.step_size) == 65_353_218


def test_stages_are_joined_as_diffusion_policy_joins_them():
    """A transcript of its forward pass: the skip of the first stage is left over, the last one's is used."""
    network, given = make((8, 16, 24)), inputs()
    film = F.mish(torch.cat([network.embedding(given["t"], given["d"]), given["condition"]], dim=1))
    x, h = given["x"].transpose(1, 2), []
    for (first, second), downsample in zip(network.down, [*network.downsample, nn.Identity()], strict=True):
        x = second(first(x, film), film)
        h.append(x)
        x = downsample(x)
    for block in network.middle:
        x = block(x, film)
    for (first, second), upsample in zip(network.up, network.upsample, strict=True):
        x = torch.cat([x, h.pop()], dim=1)
        x = upsample(second(first(x, film), film))
    assert len(h) == 1
    torch.testing.assert_close(network(**given), network.output(x).transpose(1, 2))


@pytest.mark.parametrize("film_scale", [True, False])
@pytest.mark.parametrize("channels", [(4, 6), (6, 6)])
def test_a_residual_block_is_two_convolutions_with_film_between_them(channels, film_scale):
    block = ResidualBlock(*channels, condition_dim=5, kernel_size=3, groups=2, film_scale=film_scale).double()
    weights = dict(block.named_parameters())
    for weight in weights.values():
        nn.init.normal_(weight)  # norms that begin as the identity would hide a mistake

    def convolve(name, x):
        x = F.conv1d(F.pad(x, (1, 1)), weights[f"{name}.0.weight"], weights[f"{name}.0.bias"])
        return F.mish(F.group_norm(x, 2, weights[f"{name}.1.weight"], weights[f"{name}.1.bias"]))

    x, condition = torch.randn(2, channels[0], 7).double(), torch.randn(2, 5).double()
    film = (condition @ weights["film.weight"].T + weights["film.bias"])[:, :, None]
    scale, shift = (film[:, :6], film[:, 6:]) if film_scale else (1.0, film)
    skip = x if channels == (6, 6) else F.conv1d(x, weights["skip.weight"], weights["skip.bias"])
    expected = convolve("second", scale * convolve("first", x) + shift) + skip
    torch.testing.assert_close(block(x, condition), expected)


@pytest.mark.parametrize(("widths", "horizon"), [((8,), 5), ((8, 16), 2), ((8, 16), 10), ((16, 8, 24), 12)])
def test_output_has_the_shape_of_the_chunk(widths, horizon):
    assert make(widths, horizon)(**inputs(horizon=horizon)).shape == (4, horizon, 2)


def test_another_horizon_than_the_one_built_for_is_checked_too():
    with pytest.raises(ValueError, match=r"multiple of 2 .*got 7"):
        make()(**inputs(horizon=7))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"horizon": 15, "widths": (8, 16, 24)}, r"multiple of 4 \(the U-Net halves it 2 times\), got 15"),
        ({"horizon": 0}, "got 0"),
        ({"widths": (8, 12)}, r"multiple of groups=8, got \[8, 12\]"),
        ({"widths": (0, 8)}, r"multiple of groups=8, got \[0, 8\]"),
        ({"widths": ()}, r"multiple of groups=8, got \[\]"),
        ({"kernel_size": 4}, "kernel_size must be odd and positive, got 4"),
        ({"kernel_size": -1}, "kernel_size must be odd and positive, got -1"),
        ({"groups": 0}, "groups must be positive, got 0"),
    ],
)
def test_sizes_that_do_not_fit_are_quoted(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


@pytest.mark.parametrize("film_scale", [True, False])
@pytest.mark.parametrize("name", ["x", "t", "d", "condition"])
def test_output_depends_on_every_input_of_its_row_and_on_no_other_row(name, film_scale):
    network, given = make(film_scale=film_scale), inputs()
    before = network(**given)
    given[name][1] += 0.25
    after = network(**given)
    assert (after[1] - before[1]).abs().max() > 1e-4
    others = [0, 2, 3]
    torch.testing.assert_close(after[others], before[others])


def test_a_row_of_a_batch_is_what_it_is_alone():
    network, given = make(), inputs()
    together = network(**given)
    for row in range(4):
        alone = network(**{name: value[row : row + 1] for name, value in given.items()})
        torch.testing.assert_close(together[row : row + 1], alone)


def test_the_first_action_depends_on_the_last():
    network, given = make(horizon=16), inputs(horizon=16)
    given["x"].requires_grad_()
    network(**given)[0, 0].sum().backward()
    assert (given["x"].grad[0].abs().amax(dim=1) > 0).all(), "every step of the chunk"
    assert not given["x"].grad[1:].any()


@pytest.mark.parametrize("film_scale", [True, False])
def test_gradient_reaches_every_parameter(film_scale):
    network = make((8, 16, 24), film_scale=film_scale)
    network(**inputs()).square().sum().backward()
    untouched = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert untouched == []
