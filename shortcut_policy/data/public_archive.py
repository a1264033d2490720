"""A public data set that lies on the web as a zip file with one zarr replay buffer in it."""

import hashlib
import os
import shutil
import stat
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shortcut_policy.data.download import Progress, fetch
from shortcut_policy.data.zarr_replay import open_replay


@dataclass(frozen=True)
class PublicArchive:
    """A zip file on the web with one zarr replay buffer in it.

    Attributes:
        path: of the zip file below a mirror, and below the data folder while it is there.
        urls: addresses, tried in order.
        target: folder of the store below the data folder.
        arrays: the arrays that `content_sha256` covers, in order.
        content_sha256: what `content_digest` gives for them.
    """

    path: str
    urls: tuple[str, ...]
    target: str
    arrays: tuple[str, ...]
    content_sha256: str

    @property
    def place(self) -> str:
        """Where below the data folder `install` looks for a copy that came another way."""
        return self.path

    def install(
        self,
        folder: Path,
        *,
        mirrors: Sequence[str] = (),
        progress: Progress | None = None,
        retries: int = 4,
        backoff_s: float = 1.0,
    ) -> Path:
        """Put the store below `folder`, downloading it unless it is there.

        A zip file `folder/<path>` that is already there is used instead of the web, and kept.

        Args:
            folder: the data folder, made where needed.
            mirrors: addresses to try before the public ones.
            progress: as in `fetch`, also retries and backoff_s.

        Returns:
            The folder of the store.

        Raises:
            ConnectionError, ValueError, FileExistsError: as `fetch`; FileExistsError also when something else lies at
                the target.
        """
        target = folder / self.target
        if target.exists():
            try:
                self.check_store(target)
            except ValueError as error:
                raise FileExistsError(f"{target} exists but is not the public data, move it away: {error}") from error
            return target
        archive = folder / self.path
        had_archive = archive.exists()
        fetch(
            [*mirrors, *self.urls],
            archive,
            check=self.check_archive,
            progress=progress,
            retries=retries,
            backoff_s=backoff_s,
        )
        _extract_store(self, archive, target)
        if not had_archive:
            archive.unlink()
        return target

    def check_store(self, path: Path) -> None:
        """Raise ValueError unless the store, a folder or a zip file, holds the public arrays."""
        found = content_digest(path, self.arrays)
        if found != self.content_sha256:
            names = ", ".join(self.arrays)
            raise ValueError(f"the arrays {names} have sha256 {found} instead of {self.content_sha256}")

    def check_archive(self, path: Path) -> None:
        """Refuse a zip file that is damaged anywhere, holds other data, or has a member that must not be unpacked."""
        self.check_store(path)
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                _check_member(member)
            try:
                damaged = archive.testzip()
            except Exception as error:  # testzip reports bad checksums only; decompressors have errors of their own
                raise ValueError(f"a file in it cannot be unpacked ({error})") from error
        if damaged:
            raise ValueError(f"{damaged!r} in it is damaged")


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


def _check_member(member: zipfile.ZipInfo) -> None:
    """Refuse names that lead out of the folder, and links; zipfile would bend the former and flatten the latter."""
    name = member.filename
    if name.startswith("/") or "\\" in name or ":" in name or ".." in name.split("/"):
        raise ValueError(f"it holds the unsafe name {name!r}")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise ValueError(f"it holds the link {name!r}")


def _extract_store(dataset: PublicArchive, path: Path, target: Path) -> None:
    """Unpack the store, and nothing else, under a temporary name, check it, and give it its own name."""
    with open_replay(path) as store:
        prefix = store.prefix
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with zipfile.ZipFile(path) as archive:
            members = [name for name in archive.namelist() if name.startswith(prefix)]
            archive.extractall(temporary / "zip", members)
        dataset.check_store(temporary / "zip" / prefix)
        os.rename(temporary / "zip" / prefix, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
