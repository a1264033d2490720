"""Where images come from: a table or a folder of encoded images, decoded one by one to the size that is asked for."""

import io
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
        identity: JSON values that change when the images do: part of the name of what is computed from them.
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
    """
    from PIL import Image

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
    """A parquet file, or a folder of them, as Hugging Face writes them: a struct of bytes and path, or plain bytes."""
    try:
        from pyarrow import ArrowInvalid, parquet, types
    except ImportError as error:
        raise ImportError(f"dataset.source=parquet {NEEDS_IMAGE}") from error
    path = Path(str(config.path))
    if not path.exists():
        raise FileNotFoundError(f"dataset.path={path} does not exist: say where the parquet file is")
    try:
        table = parquet.read_table(path)
    except (ArrowInvalid, OSError) as error:
        raise ValueError(f"dataset.path={path} is no parquet file ({error})") from error
    _require_column(table.column_names, config)
    column = table[config.image_column].combine_chunks()
    if types.is_struct(column.type):
        column = column.field("bytes")
    labels = np.zeros(len(column), np.int64)
    classes = 0
    if config.label_column in table.column_names:
        labels, classes = _labels(table[config.label_column].to_numpy(), f"{path}: column {config.label_column}")
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    identity = {"source": "parquet", "files": [[file.name, file.stat().st_size] for file in files]}
    return ImageSource(lambda index: column[index].as_py(), labels, classes, identity)


def _folder(config: DatasetConfig) -> ImageSource:
    """torchvision's ImageFolder layout, a folder for every class; or images in the folder itself, without labels."""
    try:
        from torchvision.datasets.folder import IMG_EXTENSIONS
    except ImportError as error:
        raise ImportError(f"dataset.source=folder {NEEDS_IMAGE}") from error
    path = Path(str(config.path))
    if not path.is_dir():
        raise FileNotFoundError(f"dataset.path={path} is no folder: say where the images are")

    def images(folder: Path, pattern: str) -> list[Path]:
        return sorted(file for file in folder.glob(pattern) if file.suffix.lower() in IMG_EXTENSIONS)

    files = images(path, "*")
    labels, classes = [0] * len(files), 0
    if not files:
        folders = sorted(folder for folder in path.iterdir() if folder.is_dir())
        for label, folder in enumerate(folders):
            found = images(folder, "**/*")
            files += found
            labels += [label] * len(found)
        classes = len(folders)
    identity = {"source": "folder", "count": len(files), "bytes": sum(file.stat().st_size for file in files)}
    return ImageSource(files.__getitem__, np.array(labels, np.int64), classes, identity)


def _huggingface(config: DatasetConfig) -> ImageSource:
    """A data set of the `datasets` package: one of the hub, or a folder it saved."""
    try:
        import datasets
    except ImportError as error:
        raise ImportError("dataset.source=huggingface needs the package datasets: pip install datasets") from error
    path = str(config.path)
    saved = (Path(path) / "dataset_info.json").exists()
    data = datasets.load_from_disk(path) if saved else datasets.load_dataset(path, split=config.split)
    _require_column(data.column_names, config)
    images = data.select_columns(config.image_column).cast_column(config.image_column, datasets.Image(decode=False))
    labels, classes = np.zeros(len(data), np.int64), 0
    if config.label_column in data.column_names:
        labels, classes = _labels(np.asarray(data[config.label_column]), f"{path}: column {config.label_column}")

    def read(index: int) -> Any:
        image = images[index][config.image_column]
        return image["bytes"] if image["bytes"] is not None else image["path"]

    return ImageSource(read, labels, classes, {"source": "huggingface", "fingerprint": data._fingerprint})


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
