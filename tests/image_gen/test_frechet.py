"""Fréchet distances with known answers, and against other implementations."""

import numpy as np
import pytest
import torch

from image_gen.features import FeaturesConfig, load_features
from image_gen.frechet import Moments, Statistics, frechet_distance, read_statistics
from image_gen.image_data import load_images
from image_gen.image_sources import DatasetConfig


def statistics_of(features):
    moments = Moments(features.shape[1])
    for part in torch.as_tensor(features).split(7):
        moments.add(part)
    return moments.statistics()


def random_features(seed, rows=200, dim=12):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(rows, dim)) @ rng.normal(size=(dim, dim)) + rng.normal(size=dim)


def test_moments_are_mean_and_covariance():
    features = random_features(0)
    found = statistics_of(features)
    np.testing.assert_allclose(found.mean, features.mean(0))
    np.testing.assert_allclose(found.covariance, np.cov(features, rowvar=False), atol=1e-12)
    with pytest.raises(ValueError, match="at least two images, got 1"):
        statistics_of(features[:1])


def test_the_distance_of_diagonal_gaussians():
    first = Statistics(np.array([0.0, 1.0]), np.diag([4.0, 9.0]))
    second = Statistics(np.array([3.0, 1.0]), np.diag([1.0, 16.0]))
    assert frechet_distance(first, second) == pytest.approx(9 + (2 - 1) ** 2 + (3 - 4) ** 2)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-12)


def test_the_distance_is_that_of_scipy_and_of_torch_fidelity():
    linalg = pytest.importorskip("scipy.linalg")
    fidelity = pytest.importorskip("torch_fidelity.metric_fid")
    first, second = statistics_of(random_features(1)), statistics_of(random_features(2))
    root = linalg.sqrtm(first.covariance @ second.covariance).real
    shift = first.mean - second.mean
    expected = shift @ shift + np.trace(first.covariance + second.covariance - 2 * root)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-10)
    pair = [{"mu": s.mean, "sigma": s.covariance} for s in (first, second)]
    theirs = fidelity.fid_statistics_to_metric(*pair, verbose=False)[fidelity.KEY_METRIC_FID]
    assert frechet_distance(first, second) == pytest.approx(theirs, rel=1e-10)


def test_fewer_rows_than_features_give_a_distance():
    first, second = statistics_of(random_features(1, rows=5)), statistics_of(random_features(2, rows=5))
    assert np.isfinite(frechet_distance(first, second))
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-4)
    with pytest.raises(ValueError, match="of 12 and of 3 features"):
        frechet_distance(first, statistics_of(random_features(1, dim=3)))


def test_published_statistics_are_read(tmp_path):
    first = statistics_of(random_features(0))
    np.savez(tmp_path / "stats.npz", mu=first.mean, sigma=first.covariance)
    assert frechet_distance(first, read_statistics(tmp_path / "stats.npz")) == pytest.approx(0, abs=1e-10)
    np.savez(tmp_path / "other.npz", mean=first.mean)
    np.savez(tmp_path / "objects.npz", mu=np.array([{}], dtype=object), sigma=np.eye(1))
    np.savez(tmp_path / "shapes.npz", mu=first.mean, sigma=np.eye(2))
    for name, quoted in (("other", "no npz file"), ("objects", "no npz file"), ("shapes", r"sigma \(2, 2\)")):
        with pytest.raises(ValueError, match=quoted):
            read_statistics(tmp_path / f"{name}.npz")
    with pytest.raises(FileNotFoundError, match="absent"):
        read_statistics(tmp_path / "absent.npz")


@pytest.mark.parametrize(
    ("name", "table", "size", "channels", "layer", "least"),
    [
        ("mnist_lenet", "mnist_test", 28, 1, "fc.f7", 0.97),
        ("cifar10_resnet20", "cifar10_jpeg_test", 32, 3, "linear", 0.75),
        ("cifar10_resnet56", "cifar10_jpeg_test", 32, 3, "linear", 0.77),
    ],
)
def test_features_are_those_from_which_the_classifier_tells_classes(
    real_data, name, table, size, channels, layer, least
):
    pytest.importorskip("pyarrow")
    path = real_data(f"images/{table}.parquet")
    data = load_images(DatasetConfig(table, "parquet", str(path), size, channels, limit=400), progress=False)
    network = load_features(FeaturesConfig(name, str(real_data(f"weights/{name}.pth"))), "cpu")
    features = network(torch.from_numpy(data.images))
    assert features.shape == (400, network.dim)
    answer = network.get_submodule(layer)(features) if layer == "linear" else network.fc["f7"](features)
    assert (answer.argmax(1).numpy() == data.labels).mean() > least


def test_inception_without_a_way_to_its_weights_says_what_to_do(tmp_path, monkeypatch):
    pytest.importorskip("torch_fidelity")

    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url", refuse)
    with pytest.raises(ConnectionError, match=r"no route to host.*features\.path"):
        load_features(FeaturesConfig("inception"), "cpu")
    with pytest.raises(FileNotFoundError, match="absent"):
        load_features(FeaturesConfig("inception", str(tmp_path / "absent.pth")), "cpu")


@pytest.mark.parametrize("content", [b"", b"abc", b"PK\x03\x04 cut off"])
def test_damaged_weights_of_inception_are_named(tmp_path, monkeypatch, content):
    pytest.importorskip("torch_fidelity")
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(ValueError, match=r"not in features\.path=\S+weights\.pth \(.+\): give another file"):
        load_features(FeaturesConfig("inception", str(tmp_path / "weights.pth")), "cpu")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(
        "torch_fidelity.feature_extractor_inceptionv3.load_state_dict_from_url",
        lambda *_, **__: torch.load(tmp_path / "weights.pth"),
    )
    with pytest.raises(ValueError, match=r"downloaded to \S+cache/hub/checkpoints \(.+\): remove it there"):
        load_features(FeaturesConfig("inception"), "cpu")


def test_inception_gives_2048_features(tmp_path):
    inception = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.manual_seed(0)
    network = inception.FeatureExtractorInceptionV3.__new__(inception.FeatureExtractorInceptionV3)
    with pytest.MonkeyPatch.context() as patch:  # random weights in the layout that torch-fidelity reads
        patch.setattr(inception, "load_state_dict_from_url", lambda *_, **__: None, raising=False)
        patch.setattr(torch.nn.Module, "load_state_dict", lambda *_, **__: None)
        network.__init__("inception-v3-compat", ["2048"])
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    features = load_features(FeaturesConfig("inception", str(tmp_path / "weights.pth")), "cpu")
    images = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8)
    assert features(images).shape == (2, 2048)


def test_features_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"inception, mnist_lenet, .* got 'vgg'"):
        FeaturesConfig("vgg")
    with pytest.raises(ValueError, match="say where the weights of mnist_lenet are"):
        FeaturesConfig("mnist_lenet")
    with pytest.raises(FileNotFoundError, match="absent"):
        load_features(FeaturesConfig("mnist_lenet", str(tmp_path / "absent")), "cpu")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="does not hold the weights of cifar10_resnet20"):
        load_features(FeaturesConfig("cifar10_resnet20", str(tmp_path / "other.pth")), "cpu")
