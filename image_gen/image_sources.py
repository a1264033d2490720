"""Where images come from: a table or a folder of encoded images, decoded one by one to the size that is asked for."""

import hashlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

NEEDS_IMAGE = "needs the extra 'image': pip install -e '.[image]'"


@dataclass(frozen=True)
class DatasetConfig:
    """The images of a run: `configs/dataset/`.

    Attributes:
        name: of the data set, in results and folders.
        source: "digits" (scikit-learn's), "parquet" (columns of encoded images and labels), "folder" (a folder for
            every class, or images alone) or "huggingface" (of the `datasets` package).
        path: of the file or folder; for "huggingface" what `load_dataset` takes.
        size: H = W of the images: larger ones are cut to their central square and made smaller.
        channels: 1 or 3.
        flip: whether half of the images are mirrored in training.
        split: of a Hugging Face data set.
        image_column, label_column: of a table; without the label column, images have no labels.
        limit: the first so many images; None for all.
    """

    name: str
    source: Literal["digits", "parquet", "folder", "huggingface"]
    path: str | None = None
    size: int = 8
    channels: Literal[1, 3] = 3
    flip: bool = False
    split: str = "train"
    image_column: str = "image"
    label_column: str = "label"
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise ValueError(f"dataset.source must be one of {', '.join(SOURCES)}, got {self.source!r}")
        if self.source != "digits" and not self.path:
            raise ValueError(f"dataset.path is missing: say where the images of dataset={self.name} are")
        if self.size < 1 or self.channels not in (1, 3) or (self.limit is not None and self.limit < 1):
            raise ValueError(
                "dataset.size must be positive, dataset.channels 1 or 3 and dataset.limit positive or null, got "
                f"{self.size}, {self.channels} and {self.limit}"
            )


class CorruptImageError(ValueError):
    """An image that cannot be decoded."""


@dataclass(frozen=True)
class ImageSource:
    """Encoded images and their labels.

    Attributes:
        read: number of an image -> what `decode` takes.
        labels: (N,) int64 in 0 ... K - 1; all 0 where K = 0.
        num_classes: K; 0 for images without labels.
        identity: JSON values that change when the images or their order do: part of the name of what is computed
            from them.
    """

    read: Callable[[int], Any]
    labels: np.ndarray
    num_classes: int
    identity: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.labels)


def open_source(config: DatasetConfig) -> ImageSource:
    """Open the images of a configuration, without decoding any.

    Raises:
        FileNotFoundError, ImportError: the images, or what reads them, are missing.
        OSError: a folder or file cannot be read.
        ValueError: the table or folder is not what it should be.
    """
    source = SOURCES[config.source](config)
    if config.limit is not None:
        source = ImageSource(
            source.read,
            source.labels[: config.limit],
            source.num_classes,
            {**source.identity, "limit": config.limit},
        )
    if not len(source):
        raise ValueError(f"{config.path} holds no image")
    return source


def decode(content: Any, size: int, channels: int) -> np.ndarray:
    """An image (C, size, size) uint8: its central square, averaged down or interpolated up.

    Args:
        content: the bytes of an image file, its path, a PIL image, or an array (H, W) or (H, W, C) uint8.
        size: H = W of the result.
        channels: 1 for grey, 3 for RGB.

    Raises:
        CorruptImageError: it cannot be decoded.
        OSError: the file cannot be read, which says nothing about the image in it.
    """
    from PIL import Image

    if isinstance(content, str | Path):
        content = _read(content)
    try:
        if isinstance(content, bytes):
            content = io.BytesIO(content)
        if isinstance(content, np.ndarray):
            image = Image.fromarray(content)
        else:
            image = content if isinstance(content, Image.Image) else Image.open(content)
        image = image.convert("L" if channels == 1 else "RGB")
    except (OSError, ValueError, SyntaxError, TypeError, AttributeError, Image.DecompressionBombError) as error:
        raise CorruptImageError(str(error)) from error
    if image.size != (size, size):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        square = image.crop((left, top, left + side, top + side))
        image = square.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
    array = np.asarray(image)
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        # the same class, so that a missing file remains a FileNotFoundError
        raise type(error)(
            f"the image {path} cannot be read ({error.strerror}): make it readable, or take it out of the data set"
        ) from error


def _digits(config: DatasetConfig) -> ImageSource:
    """The 1,797 handwritten digits of 8 x 8 pixels that scikit-learn brings along."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(f"dataset.source=digits {NEEDS_IMAGE}") from error
    data = load_digits()
    images = np.round(data.images * (255 / 16)).astype(np.uint8)
    return ImageSource(images.__getitem__, data.target.astype(np.int64), 10, {"source": "digits"})


def _parquet(config: DatasetConfig) -> ImageSource:
    """A parquet file, or a folder of them, as Hugging Face writes them: a struct of bytes and path, or plain bytes.

    The identity is the column, and the names and sizes of the files.
    """
    try:
        from pyarrow import ArrowInvalid, parquet, types
    except ImportError as error:
        raise ImportError(f"dataset.source=parquet {NEEDS_IMAGE}") from error
    path = Path(str(config.path))
    if not path.exists():
        raise FileNotFoundError(f"dataset.path={path} does not exist: say where the parquet file is")
    try:
        dataset = parquet.ParquetDataset(path)
        names = dataset.schema.names
        table = dataset.read([name for name in (config.image_column, config.label_column) if name in names])
    except ArrowInvalid as error:
        raise ValueError(f"dataset.path={path} is no parquet file ({error})") from error
    if not dataset.files:
        raise ValueError(f"dataset.path={path} holds no parquet file")
    _require_column(names, config)
    # stays in chunks: in one piece the offsets of more than 2 GiB would overflow
    column = table[config.image_column]
    if types.is_struct(column.type):
        field = column.type.get_field_index("bytes")
        if field < 0:
            raise ValueError(f"{path}: column {config.image_column} holds no bytes of images, got {column.type}")
        column = column.flatten()[field]
    labels = np.zeros(len(column), np.int64)
    classes = 0
    if config.label_column in names:
        labels, classes = _labels(table[config.label_column].to_numpy(), f"{path}: column {config.label_column}")
    root = path if path.is_dir() else path.parent
    files = [[os.path.relpath(file, root), os.path.getsize(file)] for file in dataset.files]
    identity = {"source": "parquet", "column": config.image_column, "files": files}
    return ImageSource(lambda index: column[index].as_py(), labels, classes, identity)


def _folder(config: DatasetConfig) -> ImageSource:
    """torchvision's ImageFolder layout, a folder for every class; or images in the folder itself, without labels.

    Both at once are refused, and so is a class without images, which would shift the numbers of the classes behind it.
    Names that begin with a dot are ignored. The identity is a hash of the relative names and sizes in their order: not
    of the contents, so a file exchanged for one of the same name and size goes unnoticed.
    """
    try:
        from torchvision.datasets.folder import IMG_EXTENSIONS
    except ImportError as error:
        raise ImportError(f"dataset.source=folder {NEEDS_IMAGE}") from error
    path = Path(str(config.path))
    if not path.is_dir():
        raise FileNotFoundError(f"dataset.path={path} is no folder: say where the images are")

    names = _image_names(path, IMG_EXTENSIONS)
    alone = names.pop("")
    filled = [name for name, found in names.items() if found]
    if alone and filled:
        raise ValueError(
            f"{path} holds images itself, such as {alone[0]}, and folders of images, such as {filled[0]}: move one or "
            "the other out, for it is either images alone or a folder for every class"
        )
    if not alone and len(filled) < len(names):
        empty = [name for name, found in names.items() if not found]
        raise ValueError(
            f"{len(empty)} of the {len(names)} folders in {path} hold no image, such as {', '.join(empty[:3])}: fill "
            "or remove them, for every folder is a class"
        )
    groups = [alone] if alone else list(names.values())
    files = [name for group in groups for name in group]
    labels = np.repeat(np.arange(len(groups), dtype=np.int64), np.array([len(group) for group in groups], np.int64))
    digest = hashlib.sha256()
    for name in files:
        digest.update(os.fsencode(f"{name}\0{os.path.getsize(os.path.join(path, name))}\0"))
    identity = {"source": "folder", "count": len(files), "sha256": digest.hexdigest()}
    return ImageSource(lambda index: path / files[index], labels, 0 if alone else len(groups), identity)


def _image_names(path: Path, extensions: tuple[str, ...]) -> dict[str, list[str]]:
    """Names of images, relative to `path` and sorted: under "" those in it, then those below each folder in it."""
    names: dict[str, list[str]] = {"": []}
    for root, folders, files in os.walk(path, onerror=_raise, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        below = os.path.relpath(root, path)
        group, prefix = ("", "") if below == os.curdir else (below.split(os.sep)[0], below + os.sep)
        found = [file for file in files if not file.startswith(".") and file.lower().endswith(extensions)]
        # strings: a million paths would fill a gigabyte
        names.setdefault(group, []).extend(prefix + file for file in found)
    return {group: sorted(names[group]) for group in sorted(names)}


def _raise(error: OSError) -> None:
    """For `os.walk`, which else passes over folders that it cannot read."""
    raise error


def _huggingface(config: DatasetConfig) -> ImageSource:
    """A data set of the `datasets` package: one of the hub, or a folder it saved, with splits or without.

    The identity is the column and the fingerprint that the package gives.
    """
    try:
        import datasets
    except ImportError as error:
        raise ImportError("dataset.source=huggingface needs the package datasets: pip install datasets") from error
    path = str(config.path)
    # what `save_to_disk` leaves: of one data set, and of a dictionary of splits
    if any((Path(path) / name).exists() for name in ("state.json", "dataset_dict.json")):
        data = datasets.load_from_disk(path)
        if isinstance(data, datasets.DatasetDict):
            if config.split not in data:
                raise ValueError(
                    f"{path} has no split {config.split!r}: it has {', '.join(data)}; say dataset.split=..."
                )
            data = data[config.split]
    else:
        data = datasets.load_dataset(path, split=config.split)
    _require_column(data.column_names, config)
    images = data.select_columns(config.image_column).cast_column(config.image_column, datasets.Image(decode=False))
    labels, classes = np.zeros(len(data), np.int64), 0
    if config.label_column in data.column_names:
        labels, classes = _labels(np.asarray(data[config.label_column]), f"{path}: column {config.label_column}")

    def read(index: int) -> Any:
        image = images[index][config.image_column]
        if image is None:
            return None
        return image["bytes"] if image["bytes"] is not None else image["path"]

    identity = {"source": "huggingface", "column": config.image_column, "fingerprint": data._fingerprint}
    return ImageSource(read, labels, classes, identity)


SOURCES: Mapping[str, Callable[[DatasetConfig], ImageSource]] = {
    "digits": _digits,
    "parquet": _parquet,
    "folder": _folder,
    "huggingface": _huggingface,
}


def _require_column(columns: Sequence[str], config: DatasetConfig) -> None:
    if config.image_column not in columns:
        raise ValueError(
            f"{config.path} has no column {config.image_column!r}: it has {', '.join(columns)}; say "
            "dataset.image_column=..."
        )


def _labels(values: Sequence[Any] | np.ndarray, where: str) -> tuple[np.ndarray, int]:
    """int64 labels from 0, and how many classes there are."""
    labels = np.asarray(values)
    if labels.dtype.kind not in "iu" or (len(labels) and labels.min() < 0):
        raise ValueError(f"{where} must hold class numbers from 0, got {labels.dtype} such as {labels[:3].tolist()}")
    return labels.astype(np.int64), int(labels.max(initial=-1)) + 1
