import torch

from shortcut_policy.nn.vector_network import VectorNetwork


def test_a_vector_network_uses_all_it_is_given_and_learns():
    torch.manual_seed(0)
    network = VectorNetwork(3, width=16, blocks=2, step_embedding_dim=8)
    x, t, d = torch.randn(5, 3), torch.rand(5), torch.rand(5)
    output = network(x, t, d)
    assert output.shape == (5, 3)
    for changed in ((x + 0.1, t, d), (x, t + 0.1, d), (x, t, d / 2)):
        assert not torch.allclose(network(*changed), output)
    output.square().mean().backward()
    assert all(p.grad is not None for name, p in network.named_parameters() if name != "embedding.step_size.0.zero")
