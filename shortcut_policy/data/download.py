"""Fetch a file over HTTP that survives broken connections: resumed, verified, and only then given its name."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from shortcut_policy.data.checksums import Checksum, file_sha256, linked_checksum, listed_checksum

Progress = Callable[[int, int | None], None]  # bytes had so far, bytes in all where the server says so

_BROKEN = (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError)
_BLOCK_BYTES = 1 << 16


def fetch(
    url_or_mirrors: str | Sequence[str],
    destination: Path,
    *,
    sha256: str | None = None,
    size: int | None = None,
    check: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
    retries: int = 4,
    backoff_s: float = 1.0,
    timeout_s: float = 30.0,
) -> Path:
    """Download a file, or return it when it is already there.

    The bytes go to `destination.part`, beside a note of what the server said about the file, and are taken up again
    by the next call when the connection, or the process, breaks.

    An answer that contradicts `sha256` or `size` is refused before its bytes are fetched; the finished file must have
    both. Where no `sha256` is given, the one that the server publishes stands in for it: Hugging Face states it in the
    listing of the folder and in the answer itself (see `checksums`). Where a server publishes none either, the file is
    held to its announced length and to `check`, no more.

    Args:
        url_or_mirrors: one http(s) address or several, tried in order.
        destination: where the file goes; a file that is already there is verified and never overwritten.
        sha256: of the whole file, in hexadecimal; also of a file that is already there.
        size: of the whole file in bytes.
        check: called with the finished file, before it gets its name; raises ValueError when it is not the right one.
        progress: called as bytes arrive.
        retries: connections that may break in a row without bringing a new byte, per address.
        backoff_s: seconds to wait before the first retry, doubled for each further one.
        timeout_s: seconds without a byte after which a connection counts as broken.

    Returns:
        `destination`.

    Raises:
        ConnectionError: when no address delivered the file.
        ValueError: when an address is not http(s), or one delivered a wrong file and no other the right one.
        FileExistsError: when `destination` is already there and is not the right file.
    """
    urls = [url_or_mirrors] if isinstance(url_or_mirrors, str) else list(url_or_mirrors)
    if not urls:
        raise ValueError(f"no address to download {destination.name} from: give at least one")
    for url in urls:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"address {url!r} must begin with http:// or https://")
    wanted = Checksum(sha256.lower() if sha256 else None, size)
    if destination.exists():
        try:
            _verify(destination, wanted, check)
        except ValueError as error:
            raise FileExistsError(f"{destination} exists but is not the file wanted, move it away: {error}") from error
        return destination

    destination.parent.mkdir(parents=True, exist_ok=True)
    part = _Part(destination)
    failures: list[Exception] = []
    for url in urls:
        try:
            said = wanted if wanted.sha256 else wanted.filled_by(listed_checksum(url, timeout_s))
            remote = _download(url, part, said, progress, retries, backoff_s, timeout_s)
            try:
                _verify(part.path, said.filled_by(remote.checksum), check)
            except ValueError:
                part.discard()  # a wrong file must not be resumed
                raise
        except (ConnectionError, ValueError) as error:
            failures.append(error)
            continue
        part.finish()
        return destination
    reasons = "; ".join(f"{url}: {error}" for url, error in zip(urls, failures, strict=True))
    kind = ConnectionError if all(isinstance(error, ConnectionError) for error in failures) else ValueError
    raise kind(f"could not download {destination.name} ({reasons})") from failures[-1]


def _verify(path: Path, wanted: Checksum, check: Callable[[Path], None] | None) -> None:
    if wanted.size is not None and path.stat().st_size != wanted.size:
        raise ValueError(f"it has {path.stat().st_size} bytes instead of {wanted.size}")
    if wanted.sha256 is not None and (found := file_sha256(path)) != wanted.sha256:
        raise ValueError(f"its sha256 is {found} instead of {wanted.sha256}")
    if check is not None:
        check(path)


@dataclass(frozen=True)
class _Remote:
    """What a server says about a file; the same answer means the same bytes."""

    url: str
    etag: str | None
    last_modified: str | None
    size: int | None
    sha256: str | None = None

    @property
    def checksum(self) -> Checksum:
        return Checksum(self.sha256, self.size)

    @property
    def validator(self) -> str | None:
        """For If-Range, which takes no weak entity tag (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.last_modified

    def fits(self, earlier: "_Remote") -> bool:
        """Say whether nothing in this answer contradicts the earlier one; a partial answer may leave things out."""
        pairs = zip(asdict(self).values(), asdict(earlier).values(), strict=True)
        return all(now is None or now == before for now, before in pairs)

    def refuse_unless(self, wanted: Checksum) -> None:
        """Raise ValueError when this is known to be another file than the one wanted."""
        for now, then, unit in ((self.size, wanted.size, "bytes"), (self.sha256, wanted.sha256, "as sha256")):
            if now is not None and then is not None and now != then:
                raise ValueError(f"the server offers {now} {unit} instead of {then}")


class _Part:
    """The unfinished file beside its destination, and the note of where its bytes came from."""

    def __init__(self, destination: Path):
        self.destination = destination
        self.path = destination.with_name(f"{destination.name}.part")
        self._note = destination.with_name(f"{destination.name}.part.json")

    def resumable(self, url: str) -> tuple[int, _Remote | None]:
        """Return how many bytes of `url` are here and what the server said then; 0 and None where nothing fits."""
        try:
            remote = _Remote(**json.loads(self._note.read_text(encoding="utf-8")))
            received = self.path.stat().st_size
        except (OSError, ValueError, TypeError):
            return 0, None
        return (received, remote) if remote.url == url and received > 0 else (0, None)

    def begin(self, remote: _Remote) -> None:
        """Empty the file and note whose bytes will follow."""
        self.discard()
        self._note.write_text(json.dumps(asdict(remote)), encoding="utf-8")

    def discard(self) -> None:
        """Forget the bytes so far."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the verified file its name."""
        if self.destination.exists():
            raise FileExistsError(f"{self.destination} appeared during the download: it was left as it is")
        os.rename(self.path, self.destination)
        self._note.unlink(missing_ok=True)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects and keeps what they say about the file they lead to; the last answer does not repeat it."""

    def __init__(self):
        self.checksum = Checksum()

    def redirect_request(self, request, body, code, message, headers, url):
        self.checksum = self.checksum.filled_by(linked_checksum(headers))
        return super().redirect_request(request, body, code, message, headers, url)


def _download(
    url: str,
    part: _Part,
    wanted: Checksum,
    progress: Progress | None,
    retries: int,
    backoff_s: float,
    timeout_s: float,
) -> _Remote:
    """Fill the part, connecting again while connections break; ConnectionError when that leads nowhere."""
    furthest, failures = part.resumable(url)[0], 0
    while True:
        try:
            return _transfer(url, part, wanted, progress, timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            if error.code != 429 and error.code < 500:  # asking again will not help
                raise ConnectionError(f"the server answered {error.code} {error.reason}") from error
            reason: Exception = error
        except _BROKEN as error:
            reason = error
        received = part.resumable(url)[0]
        # Counting from the furthest byte ends the loop where a server that cannot resume breaks every time.
        failures = 0 if received > furthest else failures + 1
        furthest = max(furthest, received)
        if failures > retries:
            raise ConnectionError(f"{reason} (gave up after {failures} tries)") from reason
        time.sleep(backoff_s * 2 ** max(failures - 1, 0))


def _transfer(url: str, part: _Part, wanted: Checksum, progress: Progress | None, timeout_s: float) -> _Remote:
    """Make one request for what is missing and append it; one of `_BROKEN` when the connection ends early."""
    offset, earlier = part.resumable(url)
    if earlier is not None and offset == earlier.size:
        return earlier
    headers = {"User-Agent": "shortcut-policy", "Accept-Encoding": "identity"}
    if earlier is not None:
        headers["Range"] = f"bytes={offset}-"
        if earlier.validator:
            headers["If-Range"] = earlier.validator
    redirects = _Redirects()
    opener = urllib.request.build_opener(redirects)
    try:
        response = opener.open(urllib.request.Request(url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        if error.code != 416 or earlier is None:
            raise
        error.close()
        part.discard()  # the file there has become shorter than our part
        return _transfer(url, part, wanted, progress, timeout_s)
    with response:
        first, remote = _describe(url, response, redirects.checksum)
        remote.refuse_unless(wanted)
        if response.status == 206 and (earlier is None or first != offset or not remote.fits(earlier)):
            part.discard()
            if earlier is None:
                raise ConnectionError("the server sent a part of the file although the whole was asked for")
            response.close()
            return _transfer(url, part, wanted, progress, timeout_s)
        if response.status != 206:  # the whole file, whatever was asked for
            offset, earlier = 0, remote
            part.begin(remote)
        with part.path.open("ab") as file:
            while block := response.read1(_BLOCK_BYTES):
                file.write(block)
                offset += len(block)
                if progress is not None:
                    progress(offset, remote.size)
    if remote.size is not None and offset != remote.size:
        raise ConnectionError(f"the connection closed after {offset} of {remote.size} bytes")
    return earlier


def _describe(url: str, response: http.client.HTTPResponse, redirected: Checksum) -> tuple[int, _Remote]:
    """Return the position of the first byte that follows, and what the server says about the whole file."""
    first, total = 0, response.headers.get("Content-Length")
    if response.status == 206:  # Content-Range: bytes 100-199/200
        span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
        first = int(span.partition("-")[0]) if span.partition("-")[0].isdigit() else -1
    size = int(total) if total is not None and total.isdigit() else None
    linked = redirected.filled_by(linked_checksum(response.headers))
    if None not in (size, linked.size) and size != linked.size:
        raise ValueError(f"the server announces {linked.size} bytes but sends {size}")
    return first, _Remote(
        url=url,
        etag=response.headers.get("ETag"),
        last_modified=response.headers.get("Last-Modified"),
        size=linked.size if size is None else size,
        sha256=linked.sha256,
    )
