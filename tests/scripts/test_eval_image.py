"""Image generators measured by command, by one process and by two."""

import io
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from image_gen.features import FEATURES
from image_gen.frechet import Statistics, frechet_distance
from image_gen.generator import Generator, GeneratorConfig
from image_gen.grid import grid_to_text, text_to_grid
from image_gen.image_results import image_table, read_image_result
from image_gen.measuring import measure_real_images, sample_statistics
from shortcut_policy.config import Component, from_mapping, to_mapping
from shortcut_policy.plots import SOURCE_KEY
from shortcut_policy.training.distributed import Processes

ROOT = Path(__file__).parents[2]
ALONE = Processes(0, 1, torch.device("cpu"))


class Pixels:
    """Features that can be computed by hand: the means of the four quarters."""

    title, dim = "four means", 4

    def __call__(self, images):
        return images.double().unflatten(2, (2, -1)).unflatten(4, (2, -1)).mean((1, 3, 5)).flatten(1)


def small_generator(classes=3):
    network = Component("dit", {"patch": 4, "width": 16, "depth": 1, "heads": 2})
    made = Generator.create(GeneratorConfig(1, 8, classes, network, Component("shortcut")), 0)
    torch.nn.init.normal_(made.network.output.weight, std=0.1)
    return made.eval()


def test_the_statistics_are_those_of_the_samples():
    made, labels = small_generator(), np.arange(11) % 3
    images = []

    def keep(batch):
        images.append(batch)
        return Pixels()(batch)

    keep.dim = 4
    measured = sample_statistics(made, keep, 2, labels, ALONE, batch_size=4)
    assert [len(batch) for batch in images] == [4, 4, 3]
    features = Pixels()(torch.cat(images)).numpy()
    np.testing.assert_allclose(measured.statistics.mean, features.mean(0))
    np.testing.assert_allclose(measured.statistics.covariance, np.cov(features, rowvar=False), atol=1e-8)
    assert measured.images_per_second > 0


@pytest.fixture
def recorded():
    """A function that makes processes whose sums are kept instead of added to the others', and the list of these."""
    sums = []

    class Recorded(Processes):
        def sum(self, values):
            if values.ndim:
                sums.append(values.clone())
            return values

    return lambda rank, count: Recorded(rank, count, torch.device("cpu")), sums


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_measure_the_same_samples(count, recorded):
    process, sums = recorded
    made, labels = small_generator(), np.arange(11) % 3
    whole = sample_statistics(made, Pixels(), 1, labels, ALONE, batch_size=4)
    for rank in range(count):
        sample_statistics(made, Pixels(), 1, labels, process(rank, count), batch_size=4)
    total = sum(sums)
    assert int(total[0]) == 11
    np.testing.assert_allclose(total[1:5] / 11, whole.statistics.mean)


@pytest.mark.parametrize("count", [2, 3])
def test_several_processes_measure_the_same_real_images(count, recorded):
    process, sums = recorded
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8)).astype(np.uint8)
    whole = measure_real_images(images, Pixels(), 10, ALONE, batch_size=4)
    for rank in range(count):
        measure_real_images(images, Pixels(), 10, process(rank, count), batch_size=4)
    first, rest = sum(sums[::2]), sum(sums[1::2])
    assert (int(first[0]), int(rest[0])) == (10, 30)
    np.testing.assert_allclose((first + rest)[1:5] / 40, whole.statistics.mean)


def test_the_floor_is_the_distance_of_disjoint_parts_and_the_statistics_are_of_all():
    images = np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8)).astype(np.uint8)
    real = measure_real_images(images, Pixels(), 10, ALONE, batch_size=7)

    def gaussian(rows):
        features = Pixels()(torch.from_numpy(images[rows])).double().numpy()
        return Statistics(features.mean(0), np.cov(features, rowvar=False))

    order = np.random.default_rng(0).permutation(40)
    assert real.floor == pytest.approx(frechet_distance(gaussian(order[:10]), gaussian(order[10:])))
    assert real.floor > 0
    np.testing.assert_allclose(real.statistics.mean, gaussian(order).mean)
    np.testing.assert_allclose(real.statistics.covariance, gaussian(order).covariance)
    without = measure_real_images(images, Pixels(), 21, ALONE, batch_size=7)
    assert without.floor is None
    np.testing.assert_allclose(without.statistics.covariance, real.statistics.covariance)


@pytest.fixture
def run_folder(tmp_path, run_command):
    pytest.importorskip("sklearn")
    tiny = ("network.width=16", "network.depth=1", "network.heads=2", "trainer.batch_size=16", "trainer.progress=false")
    words = ("dataset=digits", "trainer.steps=2", *tiny, f"output={tmp_path / 'run'}", "device=cpu")
    code, _, errors = run_command("train_image", *words)
    assert code == 0, errors
    return tmp_path / "run"


@pytest.fixture
def features(real_data):
    return ("features=mnist_lenet", f"features.path={real_data('weights/mnist_lenet.pth')}")


def test_a_run_is_measured_and_written(tmp_path, run_command, run_folder, features):
    words = (f"checkpoint={run_folder}", "steps=[2,1]", "count=60", "batch_size=25", *features, "progress=false")
    code, out, errors = run_command("eval_image", *words, f"result={tmp_path / 'digits_shortcut.json'}")
    assert code == 0, errors
    result = read_image_result(tmp_path / "digits_shortcut.json")
    assert result == read_image_result(run_folder / "evaluation" / "result.json")
    assert (result.name, result.updates, result.count) == ("digits_shortcut", 2, 60)
    assert [(row.steps, row.nfe) for row in result.rows] == [(2, 2), (1, 1)]
    assert "LeNet-5" in result.features
    assert result.reference == "the 1,797 images of digits"
    assert 0 < result.floor < min(row.frechet for row in result.rows)
    assert image_table([result]) in out
    assert all(text_to_grid(row.samples).shape == (5 * 9 + 1, 5 * 9 + 1, 3) for row in result.rows)
    code, _, errors = run_command("eval_image", *words)
    assert code == 2
    assert "overwrite=true" in errors

    # two processes: the same figures
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*launcher, str(ROOT / "scripts" / "eval_image.py"), *words, f"output={tmp_path / 'two'}", "device=cpu"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    two = json.loads((tmp_path / "two" / "result.json").read_text())
    for ours, theirs in zip(result.rows, two["rows"], strict=True):
        assert theirs["frechet"] == pytest.approx(ours.frechet, abs=1e-3)


def test_published_statistics_stand_in_for_images(tmp_path, run_command, run_folder, features):
    np.savez(tmp_path / "stats.npz", mu=np.zeros(84), sigma=np.eye(84))
    words = (f"checkpoint={run_folder}", "steps=[1]", "count=20", *features, f"statistics={tmp_path / 'stats.npz'}")
    code, _, errors = run_command("eval_image", *words, "progress=false")
    assert code == 0, errors
    result = read_image_result(run_folder / "evaluation" / "result.json")
    assert (result.floor, result.reference) == (None, "stats.npz")


@pytest.mark.parametrize(
    ("words", "quoted"),
    [
        (["steps=[0]"], "[0]"),
        (["count=1"], "1"),
        (["features=mnist_lenet", "features.path=nowhere.pth"], "nowhere.pth"),
        (["features.name=vgg"], "'vgg'"),
        (["statistics=nowhere.npz"], "nowhere.npz"),
        (["+reference.colour=1"], "colour"),
    ],
)
def test_wrong_values_get_one_sentence(tmp_path, run_command, run_folder, features, words, quoted):
    code, _, errors = run_command("eval_image", f"checkpoint={run_folder}", *features, *words, "progress=false")
    assert code == 2
    assert quoted in errors
    assert errors.count("\n") == 1


def test_results_that_cannot_be_compared_are_not_put_side_by_side(tmp_path, run_command, run_folder, features):
    words = (f"checkpoint={run_folder}", "steps=[1]", "count=20", *features, "progress=false")
    assert run_command("eval_image", *words)[0] == 0
    result = read_image_result(run_folder / "evaluation" / "result.json")
    assert image_table([result, result]).count("| shortcut |") == 2
    for change, quoted in (({"features": "others"}, "features is 'others'"), ({"rows": ()}, "other numbers of steps")):
        with pytest.raises(ValueError, match=quoted):
            image_table([result, from_mapping(type(result), {**to_mapping(result), **change}, "")])


def test_a_grid_survives_as_text():
    pytest.importorskip("torchvision")
    images = torch.randint(0, 256, (4, 3, 6, 6), dtype=torch.uint8)
    pixels = text_to_grid(grid_to_text(images, columns=2))
    np.testing.assert_array_equal(pixels[8:14, 1:7], images[2].permute(1, 2, 0))


def test_the_readme_shows_image_generators_by_objective_and_steps(tmp_path, run_command, run_folder, features):
    pytest.importorskip("matplotlib")
    words = (f"checkpoint={run_folder}", "steps=[2,1]", "count=20", *features, "progress=false")
    assert run_command("eval_image", *words, f"result={tmp_path / 'results' / 'digits_shortcut.json'}")[0] == 0
    script = runpy.run_path(str(ROOT / "scripts" / "update_readme.py"))
    block = "<!-- images digits: digits_shortcut -->\n<!-- end -->"
    text = script["render"](block, tmp_path)
    assert "| objective | 2 steps | 1 step | updates | training |" in text
    assert "](docs/figures/digits.png)" in text
    picture = script["picture_of"](script["BLOCK"].search(block), tmp_path)
    with Image.open(io.BytesIO(picture)) as image:
        assert image.width > 2 * image.height * 0.8
        assert "digits_shortcut.json:" in image.text[SOURCE_KEY]


def test_every_name_of_features_has_a_configuration():
    assert {path.stem for path in (ROOT / "configs" / "features").glob("*.yaml")} == set(FEATURES)
