import hashlib
import http.server
import json
import threading
from dataclasses import dataclass, field

import numpy as np
import pytest

from shortcut_policy.data.download import fetch

CONTENT = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
FILE = "/datasets/owner/name/resolve/revision/folder/file"  # as on Hugging Face
LISTING = "/api/datasets/owner/name/tree/revision/folder"


@dataclass
class Server:
    """What the local server serves, how it misbehaves, and what it was asked for."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    last_modified: str | None = None
    ranges: bool = True  # whether it understands Range
    if_range: bool = True  # whether it understands If-Range
    break_after: list[int] = field(default_factory=list)  # bytes of each answer's body, then the connection breaks
    statuses: list[int] = field(default_factory=list)  # answered first, in order
    length_error: int = 0  # how much too large the announced length is
    linked: dict[str, str] = field(default_factory=dict)  # headers of the redirect, which there is when they are given
    listing: object = None  # what the folder's listing says; 404 without
    listed: int = 0  # how often the listing was asked for
    requests: list[tuple[str | None, str | None]] = field(default_factory=list)  # (Range, If-Range)
    url: str = ""

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        if handler.path == LISTING:
            self.listed += 1
            body = json.dumps(self.listing).encode()
            handler.send_response(404 if self.listing is None else 200)
            handler.end_headers()
            handler.wfile.write(body)
        elif self.linked and handler.path != "/storage":
            handler.send_response(302)
            for name, value in {"Location": "/storage", "ETag": '"of the redirect"', **self.linked}.items():
                handler.send_header(name, value)
            handler.end_headers()
        else:
            self.answer_file(handler)

    def answer_file(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        wanted, validator = handler.headers.get("Range"), handler.headers.get("If-Range")
        self.requests.append((wanted, validator))
        if self.statuses:
            handler.send_error(self.statuses.pop(0))
            return
        fits = not self.if_range or validator in (None, self.etag, self.last_modified)
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.ranges and fits else 0
        if first and first >= len(self.content):
            handler.send_error(416)
            return
        handler.send_response(206 if first else 200)
        body = self.content[first:]
        handler.send_header("Content-Length", str(len(body) + self.length_error))
        if first:
            last = len(self.content) - 1
            handler.send_header("Content-Range", f"bytes {first}-{last}/{len(self.content) + self.length_error}")
        for name, value in (("ETag", self.etag), ("Last-Modified", self.last_modified)):
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body[: self.break_after.pop(0)] if self.break_after else body)
        handler.close_connection = True


@pytest.fixture
def serve(monkeypatch):
    """Return a function that starts a Server on 127.0.0.1 and fills in its url."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = []

    def start(server: Server) -> Server:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.answer(self)

            def log_message(self, *arguments):
                pass

        listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        running.append((listening, thread))
        server.url = f"http://127.0.0.1:{listening.server_port}{FILE}"
        return server

    yield start
    for listening, thread in running:
        listening.shutdown()
        listening.server_close()
        thread.join()


def get(server_or_url, destination, **arguments):
    urls = server_or_url.url if isinstance(server_or_url, Server) else server_or_url
    return fetch(urls, destination, **{"sha256": SHA256, "backoff_s": 0.001, **arguments})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_downloads(serve, tmp_path):
    server = serve(Server())
    seen = []
    path = get(server, tmp_path / "new/file", size=len(CONTENT), progress=lambda *now: seen.append(now))
    assert path == tmp_path / "new/file"
    assert path.read_bytes() == CONTENT
    assert names(path.parent) == ["file"]
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert [now for now, _ in seen] == sorted(now for now, _ in seen)


def test_resumes_where_the_connection_broke(serve, tmp_path):
    server = serve(Server(break_after=[100_000, 50_000]))
    assert get(server, tmp_path / "file").read_bytes() == CONTENT
    assert server.requests == [(None, None), ("bytes=100000-", '"one"'), ("bytes=150000-", '"one"')]


@pytest.mark.parametrize(
    ("headers", "if_range"),
    [
        ({"etag": None, "last_modified": "Mon, 01 Jan 2024 00:00:00 GMT"}, "Mon, 01 Jan 2024 00:00:00 GMT"),
        ({"etag": 'W/"weak"'}, None),
        ({"etag": None}, None),
    ],
)
def test_resumes_by_what_the_server_offers(serve, tmp_path, headers, if_range):
    server = serve(Server(break_after=[100_000], **headers))
    assert get(server, tmp_path / "file").read_bytes() == CONTENT
    assert server.requests[1] == ("bytes=100000-", if_range)


def test_resumes_in_the_next_call(serve, tmp_path):
    server = serve(Server(break_after=[100_000, 0]))
    with pytest.raises(ConnectionError, match="closed after 100000 of 300000 bytes"):
        get(server, tmp_path / "file", retries=0)
    assert names(tmp_path) == ["file.part", "file.part.json"]
    assert get(server, tmp_path / "file").read_bytes() == CONTENT
    assert server.requests[-1][0] == "bytes=100000-"
    assert names(tmp_path) == ["file"]


def test_finishes_a_part_that_is_whole_without_the_server(serve, tmp_path):
    server = serve(Server())

    def interrupt(path):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        get(server, tmp_path / "file", check=interrupt)
    assert get(server, tmp_path / "file").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_starts_over_when_ranges_are_ignored(serve, tmp_path):
    server = serve(Server(ranges=False, break_after=[100_000]))
    assert get(server, tmp_path / "file").read_bytes() == CONTENT


def test_gives_up_on_a_server_that_never_gets_further(serve, tmp_path):
    server = serve(Server(ranges=False, break_after=[1000, 500] * 50))
    with pytest.raises(ConnectionError, match="gave up after 3 tries"):
        get(server, tmp_path / "file", retries=2)
    assert len(server.requests) == 4  # the first one got further than nothing


@pytest.mark.parametrize("if_range", [True, False])
@pytest.mark.parametrize("change", [{"etag": '"two"'}, {"content": CONTENT[:-1] + b"!!"}])
def test_starts_over_when_the_file_changed(serve, tmp_path, if_range, change):
    server = serve(Server(content=bytes(len(CONTENT)), if_range=if_range, break_after=[100_000, 0]))
    with pytest.raises(ConnectionError):
        get(server, tmp_path / "file", retries=0)
    for name, value in ({"content": CONTENT} | change).items():
        setattr(server, name, value)
    path = get(server, tmp_path / "file", sha256=hashlib.sha256(server.content).hexdigest())
    assert path.read_bytes() == server.content


def test_starts_over_when_the_file_became_shorter(serve, tmp_path):
    server = serve(Server(break_after=[100_000, 0]))
    with pytest.raises(ConnectionError):
        get(server, tmp_path / "file", retries=0)
    server.content = CONTENT[:50_000]
    assert get(server, tmp_path / "file", sha256=None).read_bytes() == CONTENT[:50_000]


def test_ignores_a_part_of_another_address(serve, tmp_path):
    first, second = serve(Server(content=bytes(300_000), break_after=[100_000, 0])), serve(Server())
    assert get([first.url, second.url], tmp_path / "file", retries=0).read_bytes() == CONTENT
    assert second.requests == [(None, None)]


def test_retries_busy_servers(serve, tmp_path):
    server = serve(Server(statuses=[503, 429]))
    assert get(server, tmp_path / "file").read_bytes() == CONTENT
    assert len(server.requests) == 3


def test_tries_mirrors_in_order(serve, tmp_path):
    gone, wrong = serve(Server(statuses=[404] * 9)), serve(Server(content=b"<html>login</html>"))
    right, unused = serve(Server()), serve(Server())
    assert get([s.url for s in (gone, wrong, right, unused)], tmp_path / "file").read_bytes() == CONTENT
    assert [len(s.requests) for s in (gone, wrong, right, unused)] == [1, 1, 1, 0]


def test_wrong_file(serve, tmp_path):
    server = serve(Server(content=CONTENT[::-1]))
    with pytest.raises(ValueError, match=f"could not download file .*sha256 is .* instead of {SHA256}"):
        get(server, tmp_path / "file")
    assert names(tmp_path) == []
    with pytest.raises(ValueError, match="offers 300000 bytes instead of 5"):
        get(server, tmp_path / "file", size=5)
    with pytest.raises(ValueError, match="not what I want"):
        get(server, tmp_path / "file", sha256=None, check=refuse)
    assert names(tmp_path) == []


def refuse(path):
    raise ValueError("not what I want")


def test_absent_file_and_server(serve, tmp_path):
    server = serve(Server(statuses=[404]))
    with pytest.raises(ConnectionError, match=r"http://127.*/file: the server answered 404 Not Found"):
        get(server, tmp_path / "file")
    with pytest.raises(ConnectionError, match=r"could not download file .*gave up after 2 tries"):
        get("http://127.0.0.1:1/file", tmp_path / "file", retries=1)


def test_never_touches_a_file_that_is_there(serve, tmp_path):
    server = serve(Server())
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert get(server, path) == path
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="exists but is not the file wanted, move it away"):
        get(server, path)
    assert path.read_bytes() == b"mine"
    assert server.requests == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://x/y", "data"])
def test_refuses_other_addresses(tmp_path, url):
    with pytest.raises(ValueError, match=f"{url!r} must begin with http"):
        get(url, tmp_path / "file")
    with pytest.raises(ValueError, match="at least one"):
        get([], tmp_path / "file")


# A server that lies about the length


def test_length_too_large(serve, tmp_path):
    server = serve(Server(length_error=100))
    with pytest.raises(ConnectionError, match=r"closed after 300000 of 300100 bytes \(gave up after 3 tries\)"):
        get(server, tmp_path / "file", retries=2)
    assert not (tmp_path / "file").exists()
    with pytest.raises(ValueError, match="offers 300100 bytes instead of 300000"):
        get(server, tmp_path / "file", size=len(CONTENT))


def test_length_too_small(serve, tmp_path):
    server = serve(Server(length_error=-100))
    with pytest.raises(ValueError, match="sha256 is"):
        get(server, tmp_path / "file")
    with pytest.raises(ValueError, match="offers 299900 bytes instead of 300000"):
        get(server, tmp_path / "file", size=len(CONTENT))
    assert names(tmp_path) == []


def test_length_other_than_the_linked_one(serve, tmp_path):
    server, right = serve(Server(linked={"X-Linked-Size": "300001"})), serve(Server())
    with pytest.raises(ValueError, match="announces 300001 bytes but sends 300000"):
        get(server, tmp_path / "file")
    assert get([server.url, right.url], tmp_path / "file").read_bytes() == CONTENT


# The checksum that the server publishes


def linked(sha256=SHA256, size=300_000):
    return {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(size)}


def listing(sha256=SHA256, size=300_000):
    entry = {"type": "file", "oid": "0" * 40, "size": size, "path": "folder/file"}
    other = entry | {"path": "folder/other", "lfs": {"oid": "1" * 64, "size": 1}}
    return [{"type": "directory", "path": "folder/folder"}, other, entry | {"lfs": {"oid": sha256, "size": size}}]


@pytest.mark.parametrize(
    "published",
    [{"linked": linked()}, {"listing": listing()}, {"linked": linked(), "listing": listing()}],
    ids=["redirect", "listing", "both"],
)
def test_published_checksum(serve, tmp_path, published):
    right, wrong = serve(Server(**published)), serve(Server(content=CONTENT[::-1], **published))
    assert get(right, tmp_path / "right", sha256=None).read_bytes() == CONTENT
    with pytest.raises(ValueError, match=f"its sha256 is .* instead of {SHA256}"):
        get(wrong, tmp_path / "wrong", sha256=None)
    assert names(tmp_path) == ["right"]


@pytest.mark.parametrize("published", [{"linked": linked(size=5)}, {"listing": listing(size=5)}])
def test_published_size(serve, tmp_path, published):
    server = serve(Server(**published))
    with pytest.raises(ValueError, match=r"announces 5 bytes but sends 300000|offers 300000 bytes instead of 5"):
        get(server, tmp_path / "file", sha256=None)


def test_a_known_checksum_outweighs_a_published_one(serve, tmp_path):
    other = "f" * 64
    server = serve(Server(linked=linked(other), listing=listing(other)))
    with pytest.raises(ValueError, match=f"the server offers {other} as sha256 instead of {SHA256}"):
        get(server, tmp_path / "file")
    assert (server.listed, names(tmp_path)) == (0, [])


def test_listing_and_redirect_that_differ(serve, tmp_path):
    server = serve(Server(linked=linked(), listing=listing("f" * 64)))
    with pytest.raises(ValueError, match=f"the server offers {SHA256} as sha256 instead of {'f' * 64}"):
        get(server, tmp_path / "file", sha256=None)


def test_published_checksum_outlives_the_process(serve, tmp_path):
    server = serve(Server(content=CONTENT[::-1], linked=linked(), break_after=[100_000, 0]))
    with pytest.raises(ConnectionError):
        get(server, tmp_path / "file", sha256=None, retries=0)
    server.linked = {}
    with pytest.raises(ValueError, match=f"instead of {SHA256}"):
        get(server, tmp_path / "file", sha256=None)
    assert [wanted for wanted, _ in server.requests] == [None, "bytes=100000-", "bytes=100000-"]


def test_starts_over_when_the_published_checksum_changed(serve, tmp_path):
    server = serve(Server(content=bytes(len(CONTENT)), linked=linked("f" * 64), break_after=[100_000, 0]))
    with pytest.raises(ConnectionError):
        get(server, tmp_path / "file", sha256=None, retries=0)
    server.content, server.linked = CONTENT, linked()
    assert get(server, tmp_path / "file", sha256=None).read_bytes() == CONTENT


@pytest.mark.parametrize("nonsense", [{}, [1, {"path": "folder/file", "lfs": 3}], listing("main", "large"), "x"])
def test_a_listing_that_says_nothing(serve, tmp_path, nonsense):
    server = serve(Server(listing=nonsense, linked={"X-Linked-Etag": '"0123456789abcdef"', "X-Linked-Size": "big"}))
    assert get(server, tmp_path / "file", sha256=None).read_bytes() == CONTENT
    assert server.listed == 1
