import pytest
import torch
from torch import nn

from shortcut_policy.nn.image_encoders import IMAGE_ENCODERS, make_image_encoder

OPTIONS = {
    "small_cnn": {"widths": [8, 16], "keypoints": 4},
    "resnet18": {"keypoints": 4},
    "timm": {"model": "test_vit", "pretrained": False},
}


def make(name, channels=3, **options):
    if name != "small_cnn":
        pytest.importorskip("torchvision")
    if name == "timm":
        pytest.importorskip("timm")
    torch.manual_seed(0)
    return make_image_encoder(name, (channels, 40, 40), OPTIONS[name] | options)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("name", IMAGE_ENCODERS)
def test_images_become_vectors_whose_every_pixel_counts_and_every_weight_learns(name, channels):
    size = {"image_size": 160} if name == "timm" else {}
    encoder = make(name, channels, feature_dim=6, **size)
    images = torch.rand(2, channels, 40, 40, requires_grad=True)
    features = encoder(images)
    assert features.shape == (2, 6)
    assert encoder.output_dim == 6
    features[0].square().sum().backward()
    assert (images.grad[0] != 0).float().mean() > 0.9
    assert not images.grad[1].any()  # a row of the batch knows nothing of the others
    still = [parameter for parameter, values in encoder.named_parameters() if values.grad is None]
    assert still == []


@pytest.mark.parametrize("name", ["small_cnn", "resnet18"])
def test_no_statistics_of_the_batch_are_kept(name):
    encoder = make(name)
    assert not [module for module in encoder.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    images = torch.rand(3, 3, 40, 40)
    torch.testing.assert_close(encoder.train()(images), encoder.eval()(images))


def test_resnet18_is_torchvisions_but_for_its_norm_and_head():
    encoder = make("resnet18")
    convolutions = sum(p.numel() for m in encoder.modules() if isinstance(m, nn.Conv2d) for p in m.parameters())
    assert convolutions == 11_166_912 + (512 + 1) * 4  # those of ResNet-18, and the maps of the keypoints
    assert all(m.num_groups == m.num_channels // 16 for m in encoder.modules() if isinstance(m, nn.GroupNorm))


def test_a_frozen_model_of_timm_stays_as_it_is():
    encoder = make("timm", model="resnet18", frozen=True, feature_dim=6)
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    encoder.train()(torch.rand(2, 3, 40, 40)).sum().backward()
    assert {name for name, p in encoder.named_parameters() if p.grad is not None} == {"output.weight", "output.bias"}
    after = encoder.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())  # BatchNorm's statistics, too


def test_images_for_timm_are_normalised_as_its_weights_expect():
    encoder = make("timm", image_size=160)
    seen = []
    encoder.model.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    encoder(torch.stack([torch.zeros(3, 40, 40), torch.ones(3, 40, 40)]))
    assert seen[0].shape == (2, 3, 160, 160)
    torch.testing.assert_close(seen[0][:, :, 0, 0], torch.tensor([[-1.0] * 3, [1.0] * 3]))  # mean and deviation 0.5


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("small_cnn", {"widths": [12]}, r"multiple of groups=8, got \[12\]"),
        ("small_cnn", {"groups": 0}, "groups must be positive, got 0"),
        ("small_cnn", {"width": [8]}, "vision.encoder 'small_cnn': .*'width'"),
        ("timm", {"model": "resnet_of_tomorrow"}, "timm has no model 'resnet_of_tomorrow'"),
        ("timm", {"model": "resnet18"}, "'resnet18' has BatchNorm, .*: say frozen: true"),
        ("timm", {}, r"does not take images \(3, 40, 40\) .*: say vision.encoder.options.image_size"),
    ],
)
def test_options_that_do_not_fit_are_quoted(name, options, message):
    with pytest.raises(ValueError, match=message):
        make(name, **options)


def test_a_vit_is_built_for_the_size_that_is_asked_for_and_models_with_a_wider_head_fit():
    assert make("timm", image_size=80)(torch.rand(2, 3, 40, 40)).shape == (2, 64)
    wide = make("timm", model="mobilenetv3_small_050", frozen=True)
    assert wide.num_features != wide.model.num_features
    assert wide(torch.rand(2, 3, 40, 40)).shape == (2, 64)


def test_unknown_encoders_are_quoted():
    with pytest.raises(ValueError, match=r"unknown vision.encoder 'vgg': known are small_cnn, resnet18, timm"):
        make_image_encoder("vgg", (3, 40, 40), {})
