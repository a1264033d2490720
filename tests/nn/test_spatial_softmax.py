import pytest
import torch

from shortcut_policy.nn.spatial_softmax import SpatialSoftmax


def identity(channels):
    pool = SpatialSoftmax(channels, channels)
    with torch.no_grad():
        pool.maps.weight.copy_(torch.eye(channels)[:, :, None, None])
        pool.maps.bias.zero_()
    return pool


def test_a_sharp_peak_is_found_where_it_is():
    features = torch.zeros(1, 2, 5, 9)
    features[0, 0, 4, 0] = 50.0  # lower left
    features[0, 1, 1, 8] = 50.0  # upper right, one row down
    torch.testing.assert_close(identity(2)(features), torch.tensor([[-1.0, 1.0, 1.0, -0.5]]))


def test_the_position_is_the_mean_of_the_softmax():
    torch.manual_seed(0)
    features = torch.randn(3, 4, 6, 7)
    expected = []
    for feature in features.double().flatten(0, 1):
        weights = feature.exp() / feature.exp().sum()
        for axis, side in ((0, 7), (1, 6)):
            coordinate = torch.arange(side, dtype=torch.float64) / (side - 1) * 2 - 1
            expected.append(float(weights.sum(dim=axis) @ coordinate))
    assert identity(4)(features).flatten().tolist() == pytest.approx(expected, abs=1e-6)


def test_keypoints_may_be_more_or_fewer_than_channels_but_not_none():
    assert SpatialSoftmax(3, 5)(torch.randn(2, 3, 4, 4)).shape == (2, 10)
    assert SpatialSoftmax(3, 5).output_dim == 10
    with pytest.raises(ValueError, match="keypoints must be positive, got 0"):
        SpatialSoftmax(3, 0)
