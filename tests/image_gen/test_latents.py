"""Autoencoders, and latents that are computed once."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from image_gen.array_cache import cached_rows
from image_gen.autoencoders import AutoencoderConfig, load_autoencoder
from image_gen.generator import Generator, GeneratorConfig
from image_gen.image_data import ImageBatches, load_images, load_latents
from image_gen.image_sources import DatasetConfig
from shortcut_policy.config import Component


class Halves:
    """An "autoencoder" that takes every eighth pixel, and counts what it encodes."""

    channels, factor, scale = 3, 8, 1.0

    def __init__(self):
        self.module = torch.nn.Linear(1, 1)
        torch.nn.init.ones_(self.module.weight)
        torch.nn.init.zeros_(self.module.bias)
        self.encoded = 0

    def encode(self, images):
        self.encoded += len(images)
        return images[:, :, ::8, ::8].float() / 64


@pytest.fixture
def images(tmp_path):
    from PIL import Image

    pytest.importorskip("torchvision")
    rng = np.random.default_rng(0)
    for label in ("a", "b"):
        (tmp_path / "images" / label).mkdir(parents=True)
        for number in range(5):
            array = rng.integers(0, 256, (16, 16, 3), np.uint8)
            Image.fromarray(array).save(tmp_path / "images" / label / f"{number}.png")
    (tmp_path / "images" / "a" / "2.png").write_bytes(b"broken")
    return DatasetConfig("mine", "folder", str(tmp_path / "images"), 16)


def test_latents_are_those_of_the_images_and_of_their_mirror_images(tmp_path, images):
    coder = Halves()
    latents = load_latents(images, coder, tmp_path / "cache", block=3, progress=False)
    pixels = load_images(images, progress=False)
    assert (len(latents), latents.skipped, latents.shape) == (9, 1, (3, 2, 2))
    assert latents.labels.tolist() == pixels.labels.tolist()
    index = np.arange(9)
    for mirrored in (False, True):
        expected = torch.from_numpy(pixels.images)
        expected = coder.encode(expected.flip(-1) if mirrored else expected)
        taken = latents.take(index, np.full(9, mirrored), torch.device("cpu"))
        torch.testing.assert_close(taken, expected, rtol=1e-3, atol=1e-3)
    batch = ImageBatches(latents, 4, flip=True).batch(0)
    assert batch.data.shape == (4, 3, 2, 2)
    assert batch.data.dtype == torch.float32


def test_latents_are_computed_once_and_again_for_other_weights_or_another_scale(tmp_path, images):
    first, again, other, scaled = Halves(), Halves(), Halves(), Halves()
    torch.nn.init.zeros_(other.module.weight)
    scaled.scale = 2.0
    for coder, count in ((first, 18), (again, 0), (other, 18), (scaled, 18)):
        load_latents(images, coder, tmp_path / "cache", block=4, progress=False)
        assert coder.encoded == count


def test_latents_belong_to_the_images_in_their_order(tmp_path, images):
    load_latents(images, Halves(), tmp_path / "cache", progress=False)
    root = tmp_path / "images"
    for old, new in (("a", "c"), ("b", "a"), ("c", "b")):
        (root / old).rename(root / new)
    coder = Halves()
    load_latents(images, coder, tmp_path / "cache", progress=False)
    assert coder.encoded == 18


def test_an_image_that_cannot_be_read_is_not_kept_as_one_that_cannot_be_decoded(tmp_path, images, monkeypatch):
    broken, read_bytes = tmp_path / "images" / "b" / "1.png", Path.read_bytes

    def fail(path):
        if path == broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fail)
    for load in (load_images, lambda *_, **options: load_latents(images, Halves(), tmp_path, block=3, **options)):
        with pytest.raises(OSError, match=r"1\.png cannot be read \(Input/output error\)"):
            load(images, progress=False)
    monkeypatch.undo()
    coder = Halves()
    latents = load_latents(images, coder, tmp_path, block=3, progress=False)
    assert coder.encoded == 8, "what was encoded before the error stays"
    assert (len(latents), latents.skipped) == (9, 1)


def test_an_interrupted_computation_goes_on_with_the_missing_block(tmp_path):
    asked = []

    def compute(start, stop, fail_at=None):
        if start == fail_at:
            raise KeyboardInterrupt
        asked.append(start)
        return np.arange(start, stop, dtype=np.float32)[:, None]

    options = {"block": 4, "title": "numbers", "progress": False}
    with pytest.raises(KeyboardInterrupt):
        cached_rows(tmp_path, {"a": 1}, (10, 1), "float32", lambda a, b: compute(a, b, fail_at=8), **options)
    array = cached_rows(tmp_path, {"a": 1}, (10, 1), "float32", compute, **options)
    assert asked == [0, 4, 8]
    np.testing.assert_array_equal(array[:, 0], np.arange(10))
    assert not array.flags.writeable
    (state,) = tmp_path.glob("*.json")
    state.write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        cached_rows(tmp_path, {"a": 1}, (10, 1), "float32", compute, **options)


def test_sizes_that_an_autoencoder_cannot_halve_are_refused(tmp_path, images):
    config = DatasetConfig(**{**vars(images), "size": 12})
    with pytest.raises(ValueError, match=r"dataset\.size=12"):
        load_latents(config, Halves(), tmp_path)


def test_taef2_gives_faces_back(real_data):
    pytest.importorskip("pyarrow")
    faces = DatasetConfig("celeba", "parquet", str(real_data("images/celeba_10k.parquet")), 64, limit=16)
    images = torch.from_numpy(load_images(faces, progress=False).images)
    folder = str(real_data("weights/taef2_encoder.pth").parent)
    coder = load_autoencoder(AutoencoderConfig("taef2", folder, 2.0), "cpu")
    latents = coder.encode(images)
    assert latents.shape == (16, 32, 8, 8)
    assert 1.5 < latents.std() < 3.0  # twice about 1
    error = (coder.decode(latents).float() - images.float()).square().mean()
    assert 10 * torch.log10(255**2 / error) > 26  # dB


@pytest.fixture
def kl_folder(tmp_path):
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    module = diffusers.AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    module.save_pretrained(tmp_path / "kl")
    return tmp_path / "kl", module.eval()


def test_kl_latents_are_scaled_means(kl_folder):
    folder, module = kl_folder
    coder = load_autoencoder(AutoencoderConfig("kl", str(folder), 0.5), "cpu")
    assert (coder.channels, coder.factor) == (4, 2)
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        mean = module.encode(images / 127.5 - 1).latent_dist.mean
        decoded = module.decode(mean).sample
    torch.testing.assert_close(coder.encode(images), 0.5 * mean)
    expected = ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    assert (coder.decode(0.5 * mean).int() - expected.int()).abs().max() <= 1


def test_a_generator_of_latents_makes_images(kl_folder, tmp_path):
    network = Component("dit", {"patch": 2, "width": 16, "depth": 1, "heads": 2})
    config = GeneratorConfig(
        4, 4, 3, network, Component("shortcut"), autoencoder=AutoencoderConfig("kl", str(kl_folder[0]), 0.5)
    )
    Generator.create(config, 0).save_pretrained(tmp_path / "checkpoint")
    made = Generator.from_pretrained(tmp_path / "checkpoint")
    images = made.sample(torch.arange(2), 1)
    assert images.shape == (2, 3, 8, 8)
    assert images.dtype == torch.uint8


@pytest.mark.parametrize(
    ("config", "error", "quoted"),
    [
        (("taef2", "nowhere", 1.0), FileNotFoundError, "nowhere/taef2_encoder.pth does not exist"),
        (("kl", "/nowhere/at/all", 1.0), FileNotFoundError, "/nowhere/at/all"),
    ],
)
def test_missing_weights_are_named(config, error, quoted):
    pytest.importorskip("diffusers")
    with pytest.raises(error, match=quoted):
        load_autoencoder(AutoencoderConfig(*config), "cpu")


def test_unknown_autoencoders_are_refused():
    with pytest.raises(ValueError, match="kl, taef2, got 'vq'"):
        AutoencoderConfig("vq", ".", 1.0)
    with pytest.raises(ValueError, match=r"autoencoder\.scale must be positive, got 0"):
        AutoencoderConfig("kl", ".", 0.0)
