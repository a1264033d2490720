"""The block of the transformers against explicit computations in float64."""

import math

import torch

from shortcut_policy.nn.adaln_block import Attention, Block


def test_attention_is_the_explicit_sum():
    torch.manual_seed(0)
    attention, x = Attention(6, 2).double(), torch.randn(2, 5, 6).double()
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    mixed = torch.empty_like(x)
    for head in (slice(0, 3), slice(3, 6)):
        weights = torch.softmax(q[..., head] @ k[..., head].transpose(1, 2) / math.sqrt(3), dim=-1)
        mixed[..., head] = weights @ v[..., head]
    torch.testing.assert_close(attention(x), attention.output(mixed))


def test_a_block_is_the_identity_at_first_and_then_its_equation():
    torch.manual_seed(0)
    block, x, condition = Block(8, 2, 2.0).double(), torch.randn(3, 4, 8).double(), torch.randn(3, 8).double()
    torch.nn.init.zeros_(block.modulation.weight)
    torch.nn.init.zeros_(block.modulation.bias)
    assert torch.equal(block(x, condition), x)
    torch.nn.init.normal_(block.modulation.weight)
    parts = block.modulation(condition).chunk(6, dim=-1)
    shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = (part[:, None] for part in parts)

    def norm(h):
        return (h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()

    h = x + gate_a * block.attention(norm(x) * (1 + scale_a) + shift_a)
    expected = h + gate_m * block.mlp(norm(h) * (1 + scale_m) + shift_m)
    torch.testing.assert_close(block(x, condition), expected)


def test_another_scale_of_the_attention_is_used():
    torch.manual_seed(0)
    x = torch.randn(2, 5, 6).double()
    plain, sharp = Attention(6, 2).double(), Attention(6, 2, scale=1.0).double()
    sharp.load_state_dict(plain.state_dict())
    assert not torch.allclose(plain(x), sharp(x))
    with torch.no_grad():
        sharp.qkv.weight[:6] /= math.sqrt(3)
        sharp.qkv.bias[:6] /= math.sqrt(3)
    torch.testing.assert_close(plain(x), sharp(x))
