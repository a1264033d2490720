"""Images from every kind of source, and what is not an image."""

import io

import numpy as np
import pytest
from PIL import Image

from image_gen.image_data import load_images
from image_gen.image_sources import CorruptImageError, DatasetConfig, decode, open_source


def picture(value, width=12, height=8, mode="RGB"):
    """A picture of one colour, with a border of another at its left and right."""
    array = np.full((height, width, 3), value, np.uint8)
    array[:, :2] = array[:, -2:] = 255 - value
    return Image.fromarray(array).convert(mode)


def png(image):
    content = io.BytesIO()
    image.save(content, format="PNG")
    return content.getvalue()


def write_parquet(path, images, labels=None, column="image"):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {column: [{"bytes": content, "path": None} for content in images]}
    if labels is not None:
        table["label"] = labels
    parquet.write_table(pyarrow.table(table), path)
    return DatasetConfig("mine", "parquet", str(path), 8)


def test_the_central_square_is_kept():
    image = decode(png(picture(40)), 8, 3)
    assert image.shape == (3, 8, 8)
    assert (image == 40).all()
    assert decode(picture(40), 4, 1).shape == (1, 4, 4)
    assert (decode(np.asarray(picture(40)), 4, 3) == 40).all()
    large = decode(picture(40, 64, 64), 32, 3)
    assert large.shape == (3, 32, 32)
    assert large[0, 16, 16] == 40
    assert large[0, 16, 0] > 190  # the border is one pixel wide now


@pytest.mark.parametrize("content", [b"", b"GIF89a", png(picture(3))[:60], None, 3])
def test_what_is_no_image_raises_its_own_error(content):
    with pytest.raises(CorruptImageError):
        decode(content, 8, 3)


def test_digits_are_there_without_a_download():
    pytest.importorskip("sklearn")
    digits = load_images(DatasetConfig("digits", "digits", channels=1))
    assert digits.images.shape == (1797, 1, 8, 8)
    assert digits.images.max() == 255
    assert np.bincount(digits.labels).min() > 170
    assert digits.num_classes == 10
    assert digits.skipped == 0


def test_corrupt_images_of_a_table_are_left_out_and_counted(tmp_path):
    images = [png(picture(10 * i)) for i in range(5)]
    images[1] = images[1][:50]
    images[3] = None
    data = load_images(write_parquet(tmp_path / "data.parquet", images, [4, 0, 2, 1, 3]))
    assert (len(data), data.skipped, data.num_classes) == (3, 2, 5)
    assert data.labels.tolist() == [4, 2, 3]
    assert data.images[:, 0, 0, 0].tolist() == [0, 20, 40]
    broken = write_parquet(tmp_path / "broken.parquet", [b"x"] * 2, [0, 1])
    with pytest.raises(ValueError, match="none of the 2 images"):
        load_images(broken)


def test_tables_that_do_not_fit_are_refused(tmp_path):
    config = write_parquet(tmp_path / "data.parquet", [png(picture(1))], column="img")
    with pytest.raises(ValueError, match=r"no column 'image': it has img; say dataset\.image_column"):
        open_source(config)
    with pytest.raises(ValueError, match="class numbers from 0"):
        open_source(write_parquet(tmp_path / "text.parquet", [png(picture(1))], ["cat"]))
    with pytest.raises(ValueError, match="class numbers from 0"):
        open_source(write_parquet(tmp_path / "negative.parquet", [png(picture(1))], [-1]))
    (tmp_path / "no.parquet").write_text("no")
    with pytest.raises(ValueError, match="is no parquet file"):
        open_source(DatasetConfig("mine", "parquet", str(tmp_path / "no.parquet")))
    with pytest.raises(FileNotFoundError, match="absent"):
        open_source(DatasetConfig("mine", "parquet", str(tmp_path / "absent.parquet")))
    with pytest.raises(ValueError, match=r"dataset\.path is missing"):
        DatasetConfig("mine", "parquet")


def test_a_folder_for_every_class(tmp_path):
    pytest.importorskip("torchvision")
    for label, name in enumerate(("cats", "dogs")):
        (tmp_path / name / "deeper").mkdir(parents=True)
        picture(50 * label).save(tmp_path / name / "one.png")
        picture(50 * label + 1).save(tmp_path / name / "deeper" / "two.PNG")
        (tmp_path / name / "notes.txt").write_text("no image")
    (tmp_path / "dogs" / "broken.jpg").write_bytes(b"no image")
    data = load_images(DatasetConfig("mine", "folder", str(tmp_path), 8))
    assert data.labels.tolist() == [0, 0, 1, 1]
    assert sorted(data.images[:, 0, 0, 0].tolist()) == [0, 1, 50, 51]
    assert (data.num_classes, data.skipped) == (2, 1)
    flat = load_images(DatasetConfig("mine", "folder", str(tmp_path / "cats"), 8))
    assert (len(flat), flat.num_classes) == (1, 0)


def test_a_limit_takes_the_first(tmp_path):
    config = write_parquet(tmp_path / "data.parquet", [png(picture(i)) for i in range(4)])
    data = load_images(DatasetConfig(**{**vars(config), "limit": 2}))
    assert data.images[:, 0, 0, 0].tolist() == [0, 1]
    assert data.num_classes == 0


def test_a_hugging_face_data_set(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    images = [png(picture(7)), b"broken", png(picture(9))]
    table = datasets.Dataset.from_dict({"image": [{"bytes": i, "path": None} for i in images], "label": [1, 0, 2]})
    table.save_to_disk(tmp_path / "saved")
    data = load_images(DatasetConfig("mine", "huggingface", str(tmp_path / "saved"), 8))
    assert data.labels.tolist() == [1, 2]
    assert data.images[:, 0, 0, 0].tolist() == [7, 9]
    assert data.skipped == 1


@pytest.mark.parametrize(
    ("name", "size", "channels", "classes"), [("mnist", 28, 1, 10), ("cifar10_jpeg", 32, 3, 10), ("celeba", 64, 3, 0)]
)
def test_the_public_files_are_read(real_data, name, size, channels, classes):
    pytest.importorskip("pyarrow")
    path = real_data(f"images/{name}_{'10k' if name == 'celeba' else 'test'}.parquet")
    data = load_images(DatasetConfig(name, "parquet", str(path), size, channels, limit=300))
    assert data.images.shape == (300, channels, size, size)
    assert (data.num_classes, data.skipped) == (classes, 0)
    assert data.images.std() > 30
