"""Public demonstrations: where they lie, how to recognise them, and how to put them in place."""

import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

from shortcut_policy.data.download import Progress, fetch
from shortcut_policy.data.zarr_replay import open_replay


@dataclass(frozen=True)
class PublicDataset:
    """A zip file on the web with one zarr replay buffer in it.

    Attributes:
        name: the task's name on the command line.
        urls: addresses, tried in order.
        target: folder of the store below the data folder.
        arrays: the arrays that `content_sha256` covers, in order.
        content_sha256: what `content_digest` gives for them.
    """

    name: str
    urls: tuple[str, ...]
    target: str
    arrays: tuple[str, ...]
    content_sha256: str


PUBLIC_DATASETS: Mapping[str, PublicDataset] = MappingProxyType(
    {
        dataset.name: dataset
        for dataset in (
            PublicDataset(
                name="pusht",
                urls=("https://diffusion-policy.cs.columbia.edu/data/training/pusht.zip",),
                target="pusht/pusht_cchi_v7_replay.zarr",
                arrays=("data/action", "data/state", "data/keypoint", "meta/episode_ends"),
                # Over the decoded values of 25,650 steps in 206 episodes, not over the zip file, so that a copy packed
                # or compressed in another way passes too.
                content_sha256="46be9caa09e87408a1ad2cc7b9a005198ecbfc70769409213f19f3050e5caf7d",
            ),
        )
    }
)


def content_digest(path: str | Path, arrays: Sequence[str]) -> str:
    """Return the sha256 over the decoded arrays of a replay buffer, whatever its compression, chunks and format.

    Each array contributes the line `<name> <little-endian type> <shape>` and its values in C order, little-endian.

    Raises:
        FileNotFoundError, ValueError: as `open_replay` and `ReplayStore.read`.
    """
    digest = hashlib.sha256()
    with open_replay(path) as store:
        for name in arrays:
            values = store.read(name)
            values = values.astype(values.dtype.newbyteorder("<"), order="C", copy=False)
            shape = ",".join(map(str, values.shape))
            digest.update(f"{name} {values.dtype.str} {shape}\n".encode())
            digest.update(values.tobytes())
    return digest.hexdigest()


def install(
    dataset: PublicDataset,
    folder: Path,
    *,
    mirrors: Sequence[str] = (),
    progress: Progress | None = None,
    retries: int = 4,
    backoff_s: float = 1.0,
) -> Path:
    """Put a public data set below `folder`, downloading it unless it is there.

    A zip file `folder/<name>.zip` that is already there is used instead of the web, and kept.

    Args:
        dataset: which one.
        folder: the data folder, made where needed.
        mirrors: addresses to try before the public ones.
        progress: as in `fetch`, also retries and backoff_s.

    Returns:
        The folder of the store.

    Raises:
        ConnectionError, ValueError, FileExistsError: as `fetch`; FileExistsError also when something else lies at the
            target.
    """
    target = folder / dataset.target
    if target.exists():
        try:
            _check_content(dataset, target)
        except ValueError as error:
            raise FileExistsError(f"{target} exists but is not the public data, move it away: {error}") from error
        return target
    archive = folder / f"{dataset.name}.zip"
    had_archive = archive.exists()
    fetch(
        [*mirrors, *dataset.urls],
        archive,
        check=partial(_check_archive, dataset),
        progress=progress,
        retries=retries,
        backoff_s=backoff_s,
    )
    _extract_store(dataset, archive, target)
    if not had_archive:
        archive.unlink()
    return target


def _check_content(dataset: PublicDataset, path: Path) -> None:
    found = content_digest(path, dataset.arrays)
    if found != dataset.content_sha256:
        raise ValueError(
            f"the arrays {', '.join(dataset.arrays)} have sha256 {found} instead of {dataset.content_sha256}"
        )


def _check_archive(dataset: PublicDataset, path: Path) -> None:
    """Refuse a zip file that is damaged anywhere, holds other data, or has a member that must not be unpacked."""
    _check_content(dataset, path)
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            _check_member(member)
        try:
            damaged = archive.testzip()
        except Exception as error:  # testzip reports bad checksums only; decompressors have errors of their own
            raise ValueError(f"a file in it cannot be unpacked ({error})") from error
    if damaged:
        raise ValueError(f"{damaged!r} in it is damaged")


def _check_member(member: zipfile.ZipInfo) -> None:
    """Refuse names that lead out of the folder, and links; zipfile would bend the former and flatten the latter."""
    name = member.filename
    if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
        raise ValueError(f"it holds the unsafe name {name!r}")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise ValueError(f"it holds the link {name!r}")


def _extract_store(dataset: PublicDataset, path: Path, target: Path) -> None:
    """Unpack the store, and nothing else, under a temporary name, check it, and give it its own name."""
    with open_replay(path) as store:
        prefix = store.prefix
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.startswith(prefix)]
            archive.extractall(temporary / "zip", members)
        _check_content(dataset, temporary / "zip" / prefix)
        os.rename(temporary / "zip" / prefix, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
