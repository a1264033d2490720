import numpy as np
import pytest
import torch

from shortcut_policy.image_views import draw_views, view
from shortcut_policy.vision_config import VisionConfig


def images(rows=4, steps=2, height=10, width=20, channels=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (rows, steps, height, width, channels), generator=generator, dtype=torch.uint8)


def draw(config, rows=4, seed=0):
    return draw_views(config, ("front", "wrist"), rows, torch.Generator().manual_seed(seed))


def test_without_a_draw_the_centre_is_seen_in_true_colors():
    seen = view(images(), VisionConfig(crop=0.8, brightness=0.5))
    assert seen.shape == (4, 2, 3, 8, 16)
    assert torch.equal(seen, images()[:, :, 1:9, 2:18].permute(0, 1, 4, 2, 3).float() / 255)


def test_the_whole_image_is_seen_where_the_crop_is_1():
    config = VisionConfig(crop=1.0)
    expected = images().permute(0, 1, 4, 2, 3).float() / 255
    assert torch.equal(view(images(), config), expected)
    assert torch.equal(view(images(), config, draw(config).corner["front"]), expected)


def test_crops_lie_where_they_were_drawn_the_same_for_all_steps():
    corner = torch.tensor([[0.0, 0.0], [0.999, 0.999], [0.5, 0.0], [0.0, 0.5]])
    seen = view(images(), VisionConfig(crop=0.8), corner)
    for row, (top, left) in enumerate([(0, 0), (2, 4), (1, 0), (0, 2)]):
        expected = images()[row, :, top : top + 8, left : left + 16].permute(0, 3, 1, 2).float() / 255
        assert torch.equal(seen[row], expected)


def test_all_places_of_a_crop_are_equally_likely():
    config = VisionConfig(crop=0.8)
    corner = (draw(config, 6000).corner["front"] * torch.tensor([3, 5])).long()
    counts = torch.bincount(corner[:, 0] * 5 + corner[:, 1], minlength=15)
    assert len(counts) == 15
    assert counts.sub(400).abs().max() < 5 * np.sqrt(400)


def test_colors_are_those_of_the_formulas_row_by_row():
    config = VisionConfig(crop=1.0, brightness=0.4, contrast=0.4, saturation=0.4)
    color = torch.tensor([[1.0, 1.0, 1.0], [1.3, 1.0, 1.0], [1.0, 0.7, 1.0], [0.8, 1.2, 0.0]])
    seen = view(images(), config, draw(config).corner["front"], color)
    luminance = np.array([0.299, 0.587, 0.114])
    for row in range(4):
        brightness, contrast, saturation = color[row].double().numpy()
        for step in range(2):
            x = np.clip(images()[row, step].numpy() / 255.0 * brightness, 0, 1)
            mean = (x @ luminance).mean()
            x = np.clip(mean + contrast * (x - mean), 0, 1)
            gray = (x @ luminance)[..., None]
            x = np.clip(gray + saturation * (x - gray), 0, 1)
            np.testing.assert_allclose(seen[row, step].permute(1, 2, 0).numpy(), x, atol=1e-6)


def test_colors_are_drawn_within_their_bounds_and_differ_between_cameras():
    config = VisionConfig(brightness=0.1, contrast=0.2)
    views = draw(config, 2000)
    low, high = views.color["front"].aminmax(dim=0)
    torch.testing.assert_close(low, torch.tensor([0.9, 0.8, 1.0]), rtol=0, atol=2e-3)
    torch.testing.assert_close(high, torch.tensor([1.1, 1.2, 1.0]), rtol=0, atol=2e-3)
    assert not torch.equal(views.color["front"], views.color["wrist"])
    assert not torch.equal(views.corner["front"], views.corner["wrist"])


def test_rows_of_a_draw_are_rows_of_the_whole():
    config = VisionConfig(crop=0.8, brightness=0.3)
    views = draw(config)
    whole = view(images(), config, views.corner["front"], views.color["front"])
    part = views.rows(slice(1, 3))
    assert torch.equal(view(images()[1:3], config, part.corner["front"], part.color["front"]), whole[1:3])


@pytest.mark.parametrize("drawn", [False, True])
def test_what_is_seen_lies_in_memory_as_convolutions_like_it(drawn):
    config = VisionConfig(crop=0.8, brightness=0.3)
    views = draw(config)
    corner, color = (views.corner["front"], views.color["front"]) if drawn else (None, None)
    seen = view(images(), config, corner, color).flatten(0, 1)
    assert seen.is_contiguous(memory_format=torch.channels_last)


def test_depth_keeps_its_values():
    config = VisionConfig(crop=1.0, brightness=0.3, contrast=0.3, saturation=0.3)
    color = torch.tensor([[0.7, 1.2, 0.8]]).expand(4, 3)
    with_depth = images(channels=4)
    seen = view(with_depth, config, torch.zeros(4, 2), color)
    assert torch.equal(seen[:, :, 3], with_depth[..., 3].float() / 255)
    assert torch.equal(seen[:, :, :3], view(with_depth[..., :3], config, torch.zeros(4, 2), color))


def test_gray_images_have_brightness_and_contrast():
    config = VisionConfig(crop=1.0, brightness=0.3, saturation=0.5)
    gray = images(channels=1)
    color = torch.tensor([[1.2, 1.0, 0.5]]).expand(4, 3)
    expected = (gray.permute(0, 1, 4, 2, 3).float() / 255 * 1.2).clamp(max=1)
    torch.testing.assert_close(view(gray, config, torch.zeros(4, 2), color), expected)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop": 0.0}, r"vision.crop must lie in \(0, 1\], got 0.0"),
        ({"crop": 1.1}, "got 1.1"),
        ({"contrast": 1.0}, r"vision.contrast must lie in \[0, 1\), got 1.0"),
        ({"cache_features": True, "contrast": 0.1}, "needs images as they are: say vision.contrast=0"),
        ({"cache_features": True}, "needs an encoder that does not learn, and 'small_cnn' does"),
    ],
)
def test_numbers_out_of_range_are_quoted(values, message):
    with pytest.raises(ValueError, match=message):
        VisionConfig(**values)
