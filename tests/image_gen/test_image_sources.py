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


def write_parquet(path, images, labels=None, column="image", **options):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = {column: [{"bytes": content, "path": None} for content in images]}
    if labels is not None:
        table["label"] = labels
    parquet.write_table(pyarrow.table(table), path, **options)
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
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no parquet file"):
        open_source(DatasetConfig("mine", "parquet", str(tmp_path / "empty")))
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pytest.importorskip("pyarrow").table({"image": [{"path": "x"}]}), tmp_path / "paths.parquet")
    with pytest.raises(ValueError, match="column image holds no bytes of images, got struct<path: string>"):
        open_source(DatasetConfig("mine", "parquet", str(tmp_path / "paths.parquet")))
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
    flat = load_images(DatasetConfig("mine", "folder", str(tmp_path / "cats" / "deeper"), 8))
    assert (len(flat), flat.num_classes) == (1, 0)


def folder_of(path, *names):
    """A folder of pictures; those whose names are as long have as many bytes."""
    pytest.importorskip("torchvision")
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(png(picture(len(name))))
    return DatasetConfig("mine", "folder", str(path), 8)


def test_the_identity_of_a_folder_is_its_order_of_names_and_sizes(tmp_path):
    config = folder_of(tmp_path / "a", "cats/one.png", "dogs/two.png", "dogs/six.png")
    first = open_source(config).identity
    assert first == open_source(config).identity
    assert first == open_source(folder_of(tmp_path / "b", "cats/one.png", "dogs/two.png", "dogs/six.png")).identity

    root = tmp_path / "a"
    for moves in (
        [("cats", "tmp"), ("dogs", "cats"), ("tmp", "dogs")],  # the classes exchange their names
        [("cats/two.png", "cats/ten.png")],
    ):
        for old, new in moves:
            (root / old).rename(root / new)
        renamed = open_source(config).identity
        assert renamed["count"] == 3
        assert renamed != first
        first = renamed
    (root / "cats" / "ten.png").write_bytes(b"longer" * 100)
    assert open_source(config).identity != first


def test_images_beside_folders_of_images_are_refused(tmp_path):
    config = folder_of(tmp_path, "cats/one.png", "dogs/two.png")
    assert open_source(config).num_classes == 2
    folder_of(tmp_path, "stray.png")
    with pytest.raises(
        ValueError, match=r"holds images itself, such as stray\.png, and folders of images, such as cats"
    ):
        open_source(config)
    for name in ("cats/one.png", "dogs/two.png"):
        (tmp_path / name).unlink()
    assert open_source(config).num_classes == 0


def test_hidden_names_are_no_classes_and_no_images(tmp_path):
    config = folder_of(tmp_path, ".cache/x.png", ".stray.png", "cats/one.png", "cats/._one.png", "cats/.old/one.png")
    source = open_source(config)
    assert (len(source), source.num_classes) == (1, 1)


def test_a_class_without_images_is_named_and_refused(tmp_path):
    config = folder_of(tmp_path, "ants/one.png", "dogs/two.png")
    (tmp_path / "bees" / "deeper").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"1 of the 3 folders .* no image, such as bees: fill or remove"):
        open_source(config)


def test_a_folder_of_nothing_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no image"):
        open_source(folder_of(tmp_path))


def test_a_file_that_cannot_be_read_is_not_one_that_cannot_be_decoded(tmp_path):
    config = folder_of(tmp_path, "one.png", "two.png")
    source = open_source(config)
    (tmp_path / "one.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"one\.png cannot be read \(No such file or directory\)"):
        decode(source.read(0), 8, 3)
    (tmp_path / "one.png").mkdir()
    with pytest.raises(IsADirectoryError, match=r"one\.png cannot be read"):
        decode(str(source.read(0)), 8, 3)
    assert load_images(config).skipped == 0  # a folder is no image, whatever its name
    (tmp_path / "one.png").rmdir()
    (tmp_path / "one.png").symlink_to(tmp_path / "absent.png")
    with pytest.raises(FileNotFoundError, match=r"one\.png"):
        open_source(config)


def test_tables_of_several_files_and_row_groups_are_read_in_order(tmp_path):
    for number, name in enumerate(("a", "b/deeper")):
        (tmp_path / name).mkdir(parents=True)
        images = [png(picture(100 * number + i)) for i in range(5)]
        images[3] = None
        write_parquet(tmp_path / name / "x.parquet", images, range(5 * number, 5 * number + 5), row_group_size=2)
    config = DatasetConfig("mine", "parquet", str(tmp_path), 8)
    data = load_images(config)
    assert data.images[:, 0, 0, 0].tolist() == [0, 1, 2, 4, 100, 101, 102, 104]
    assert data.labels.tolist() == [0, 1, 2, 4, 5, 6, 7, 9]
    assert data.skipped == 2
    assert [name for name, _ in open_source(config).identity["files"]] == ["a/x.parquet", "b/deeper/x.parquet"]


@pytest.mark.parametrize("struct", [True, False])
def test_tables_of_more_than_2_gib_are_read(tmp_path, monkeypatch, struct):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    config = write_parquet(tmp_path / "data.parquet", [png(picture(7))])
    content, size = png(picture(7)), 2**30
    memory = np.zeros(size, np.uint8)  # pages that nobody touches take no room
    memory[: len(content)] = np.frombuffer(content, np.uint8)
    ends = np.array([0, len(content), size], np.int32)
    chunk = pyarrow.Array.from_buffers(pyarrow.binary(), 2, [None, pyarrow.py_buffer(ends), pyarrow.py_buffer(memory)])
    if struct:
        chunk = pyarrow.StructArray.from_arrays([chunk], ["bytes"])
    table = pyarrow.table({"image": pyarrow.chunked_array([chunk] * 3)})
    monkeypatch.setattr(parquet.ParquetDataset, "read", lambda *_, **__: table)
    source = open_source(config)
    assert len(source) == 6
    assert source.read(4) == content


def test_another_column_is_another_identity(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"image": [png(picture(1))], "depth.png": [png(picture(2))], "label": [0]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "data.parquet")
    config = DatasetConfig("mine", "parquet", str(tmp_path / "data.parquet"), 8)
    other = DatasetConfig(**{**vars(config), "image_column": "depth.png"})
    assert load_images(other).images[0, 0, 0, 0] == 2
    assert open_source(config).identity != open_source(other).identity


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


def test_a_hugging_face_dictionary_of_splits_and_of_columns(tmp_path):
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    features = datasets.Features(
        {name: datasets.Image() for name in ("image", "depth")} | {"label": datasets.Value("int64")}
    )

    def split(*values):
        encoded = [None if value is None else {"bytes": png(picture(value)), "path": None} for value in values]
        rows = {"image": encoded, "depth": encoded[::-1], "label": list(range(len(values)))}
        return datasets.Dataset.from_dict(rows, features=features)

    path = tmp_path / "saved"
    # a name by which `load_dataset` would not find it
    datasets.DatasetDict({"train": split(1, 2), "mine": split(3, None, 5)}).save_to_disk(path)
    config = DatasetConfig("mine", "huggingface", str(path), 8, split="mine")
    data = load_images(config)
    assert data.images[:, 0, 0, 0].tolist() == [3, 5]
    assert data.skipped == 1, "the missing image"
    other = DatasetConfig(**{**vars(config), "image_column": "depth"})
    assert load_images(other).images[:, 0, 0, 0].tolist() == [5, 3]
    assert open_source(config).identity != open_source(other).identity
    assert open_source(config).identity != open_source(DatasetConfig(**{**vars(config), "split": "train"})).identity
    with pytest.raises(ValueError, match=r"has no split 'test': it has train, mine; say dataset\.split"):
        open_source(DatasetConfig(**{**vars(config), "split": "test"}))


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
