"""Images in, images out: data, generator, checkpoint."""

import numpy as np
import pytest
import torch

from image_gen.generator import Generator, GeneratorConfig
from image_gen.image_data import ImageBatches, ImageSet
from image_gen.pixels import to_network, to_uint8
from shortcut_policy.config import Component


def make_generator(seed=0, objective="shortcut", **options):
    network = Component("dit", {"patch": 4, "width": 16, "depth": 1, "heads": 2})
    made = Generator.create(GeneratorConfig(1, 8, 10, network, Component(objective, options)), seed)
    torch.manual_seed(seed)
    for parameter in made.network.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def image_set(count=7):
    images = np.random.default_rng(0).integers(0, 256, (count, 1, 8, 8)).astype(np.uint8)
    return ImageSet(images, np.arange(count) % 3, 3, "a test")


def test_pixels_survive_the_way_to_the_network_and_back():
    every = torch.arange(256, dtype=torch.uint8)
    assert to_network(every).min() == -1
    assert to_network(every).max() == 1
    assert torch.equal(to_uint8(to_network(every)), every)
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_an_epoch_holds_every_image_once_with_its_label():
    data = image_set()
    batches = ImageBatches(data, 7, seed=3)
    for step in range(2):
        batch = batches.batch(step)
        same = [(data.images == image.numpy()).all((1, 2, 3)) for image in to_uint8(batch.data)]
        order = [int(np.flatnonzero(found)[0]) for found in same]
        assert sorted(order) == list(range(7))
        assert batch.condition.tolist() == data.labels[order].tolist()
        assert batch.null_condition.tolist() == [3] * 7
    rows = ImageBatches(data, 7, seed=3).batch(1, slice(2, 5))
    assert torch.equal(rows.data, batch.data[2:5])


def test_half_of_the_images_are_mirrored_and_the_same_ones_on_every_process():
    data = image_set(64)
    plain, flipped = (ImageBatches(data, 64, seed=1, flip=flip).batch(0).data for flip in (False, True))
    mirrored = (flipped == plain.flip(-1)).flatten(1).all(1)
    assert (mirrored | (flipped == plain).flatten(1).all(1)).all()
    assert 16 < mirrored.sum() < 48
    part = ImageBatches(data, 64, seed=1, flip=True).batch(0, slice(10, 20))
    assert torch.equal(part.data, flipped[10:20])


def test_images_without_labels_carry_the_null_label():
    data = ImageSet(image_set().images, np.zeros(7, np.int64), 0, "a test")
    batch = ImageBatches(data, 4).batch(0)
    assert batch.condition.tolist() == batch.null_condition.tolist() == [0] * 4


@pytest.mark.parametrize(
    ("change", "quoted"),
    [
        ({"images": np.zeros((7, 1, 8, 6), np.uint8)}, r"\(7, 1, 8, 6\)"),
        ({"images": np.zeros((7, 1, 8, 8), np.float32)}, "float32"),
        ({"labels": np.arange(6)}, r"\(6,\)"),
        ({"labels": np.arange(7)}, "0 to 6"),
    ],
)
def test_image_sets_that_do_not_fit_are_refused(change, quoted):
    with pytest.raises(ValueError, match=quoted):
        ImageSet(**{**vars(image_set()), **change})


def test_samples_are_images_and_a_function_of_their_noise():
    made, labels = make_generator(condition_dropout=0.1), torch.arange(6)
    noise = torch.randn(6, 1, 8, 8)
    images = made.sample(labels, 2, noise=noise)
    assert images.shape == (6, 1, 8, 8)
    assert images.dtype == torch.uint8
    assert torch.equal(made.sample(labels[2:4], 2, noise=noise[2:4]), images[2:4])
    assert not torch.equal(made.sample(labels + 1, 2, noise=noise), images)
    assert not torch.equal(made.sample(labels, 2, noise=noise, guidance=4.0), images)
    again = [
        make_generator(objective="consistency_training").sample(
            labels, 3, noise=noise, generator=torch.Generator().manual_seed(seed)
        )
        for seed in (0, 0, 1)
    ]
    assert torch.equal(again[0], again[1])
    assert not torch.equal(again[0], again[2])


def test_guidance_without_a_null_condition_that_was_trained_is_refused():
    with pytest.raises(ValueError, match=r"guidance=1\.5 needs a generator that was also trained without its labels"):
        make_generator().sample(torch.arange(2), 1, guidance=1.5)


def test_latents_are_no_images():
    network = Component("dit", {"patch": 4, "width": 16, "depth": 1, "heads": 2})
    made = Generator.create(GeneratorConfig(4, 8, 10, network, Component("shortcut", {})), 0)
    assert made.generate(torch.arange(2), 1).shape == (2, 4, 8, 8)
    with pytest.raises(ValueError, match="4 channels are no image: the generator makes latents"):
        made.sample(torch.arange(2), 1)


@pytest.mark.parametrize("objective", ["flow_matching", "shortcut"])
def test_the_official_network_needs_an_objective_that_tells_no_zero(objective):
    network = Component("dit", {"patch": 4, "width": 16, "depth": 1, "heads": 2, "compatibility": "official"})
    with pytest.raises(ValueError, match="has no embedding of d = 0"):
        Generator.create(GeneratorConfig(1, 8, 10, network, Component(objective, {})), 0)
    told = Component("shortcut", {"flow_step": "smallest"})
    sample = Generator.create(GeneratorConfig(1, 8, 10, network, told), 0).generate(torch.arange(2), 2)
    assert sample.isfinite().all()


def test_a_checkpoint_samples_as_before(tmp_path):
    made, noise = make_generator(), torch.randn(3, 1, 8, 8)
    made.save_pretrained(tmp_path / "checkpoint")
    loaded = Generator.from_pretrained(tmp_path / "checkpoint")
    assert loaded.config == made.config
    labels = torch.tensor([0, 5, 10])
    assert torch.equal(loaded.sample(labels, 4, noise=noise), made.sample(labels, 4, noise=noise))
    state = torch.random.get_rng_state()
    Generator.from_pretrained(tmp_path / "checkpoint")
    assert torch.equal(torch.random.get_rng_state(), state), "loading draws nothing from the global generator"


def test_what_does_not_fit_is_quoted():
    made = make_generator()
    with pytest.raises(ValueError, match=r"0 \.\.\. 10, got \[11\]"):
        made.sample(torch.tensor([11]), 1)
    with pytest.raises(ValueError, match=r"\(1, 1, 8, 8\), got \(1, 1, 4, 4\)"):
        made.sample(torch.tensor([1]), 1, noise=torch.zeros(1, 1, 4, 4))
    for network, quoted in ((Component("vit"), "'vit': known are dit"), (Component("dit", {"layers": 3}), "layers")):
        with pytest.raises(ValueError, match=quoted):
            Generator(GeneratorConfig(1, 8, 10, network, Component("shortcut")))
