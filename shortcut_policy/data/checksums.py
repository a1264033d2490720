"""What the bytes of a file must be: said by the server that offers it, or recorded beside it when it was verified."""

import hashlib
import http.client
import json
import re
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_SHA256 = re.compile(r"[0-9a-f]{64}")
_HUB_FILE = re.compile(
    r"(?P<hub>https?://[^/]+)/datasets/(?P<repository>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>[^?#]+)"
)
_LISTING_BYTES = 1 << 20


@dataclass(frozen=True)
class Checksum:
    """The sha256 (64 lowercase hexadecimal digits) and the size in bytes of a file; None where it is not known."""

    sha256: str | None = None
    size: int | None = None

    def filled_by(self, other: "Checksum") -> "Checksum":
        """Take from `other` what is not known here."""
        return Checksum(self.sha256 or other.sha256, other.size if self.size is None else self.size)


def linked_checksum(headers: Mapping[str, str]) -> Checksum:
    """Read what Hugging Face says, on the way to a large file, about that file.

    `X-Linked-Etag` is the file's sha256 and `X-Linked-Size` its size; both stand on the answer that redirects to the
    storage. For a small file the tag is a git hash, which says nothing here.
    """
    size = headers.get("X-Linked-Size", "")
    return Checksum(_sha256(headers.get("X-Linked-Etag", "").strip('"')), int(size) if size.isdigit() else None)


def listed_checksum(url: str, timeout_s: float) -> Checksum:
    """Ask Hugging Face's listing of a folder, `<hub>/api/datasets/<repository>/tree/<revision>/<folder>`, about a file.

    Args:
        url: of the file, `<hub>/datasets/<repository>/resolve/<revision>/<folder>/<name>`.
        timeout_s: seconds without a byte after which the listing counts as absent.

    Returns:
        What the listing says; nothing where the address is of another form, or where there is no such listing: that is
        no error, for the listing is only a second opinion.
    """
    file = _HUB_FILE.match(url)
    if file is None:
        return Checksum()
    folder = file["path"].rpartition("/")[0]
    listing = f"{file['hub']}/api/datasets/{file['repository']}/tree/{file['revision']}/{folder}"
    request = urllib.request.Request(listing, headers={"User-Agent": "shortcut-policy"})
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            entries = json.loads(response.read(_LISTING_BYTES))
    except (OSError, http.client.HTTPException, ValueError):
        return Checksum()
    for entry in entries if isinstance(entries, list) else []:
        if isinstance(entry, dict) and entry.get("path") == file["path"] and isinstance(entry.get("lfs"), dict):
            size = entry["lfs"].get("size")
            return Checksum(_sha256(entry["lfs"].get("oid")), size if isinstance(size, int) else None)
    return Checksum()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file in lowercase hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def record_sha256(path: Path) -> None:
    """Write `<path>.sha256` for a file, as `sha256sum` does: `sha256sum -c` verifies it."""
    _record_of(path).write_text(f"{file_sha256(path)}  {path.name}\n", encoding="utf-8")


def recorded_sha256(path: Path) -> str | None:
    """Return the sha256 that `<path>.sha256` states, None where there is no such file.

    Raises:
        ValueError: when it is not what `sha256sum` writes for this file.
    """
    record = _record_of(path)
    if not record.exists():
        return None
    sha256, _, name = record.read_text(encoding="utf-8", errors="replace").strip().partition("  ")
    if _sha256(sha256) is None or name != path.name:
        raise ValueError(f"{record} does not state the sha256 of {path.name}: delete it if you trust {path.name}")
    return sha256


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _sha256(text: object) -> str | None:
    return text if isinstance(text, str) and _SHA256.fullmatch(text) else None
