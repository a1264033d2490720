import functools
import hashlib
import http.server
import os
import shutil
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from shortcut_policy.data.public_datasets import PUBLIC_DATASETS, PublicDataset, content_digest, install
from shortcut_policy.data.zarr_replay import ArraySource, read_zarr

REPOSITORY = Path(__file__).parents[2]
ARRAYS = ("data/action", "meta/episode_ends")


@dataclass(frozen=True)
class Site:
    """A folder served on 127.0.0.1, and the paths that were asked for."""

    folder: Path
    url: str
    requests: list[str]


@pytest.fixture
def site(monkeypatch, tmp_path) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    folder, requests = tmp_path / "site", []
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            requests.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield Site(folder, f"http://127.0.0.1:{listening.server_port}", requests)
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture
def dataset(write_replay, site) -> PublicDataset:
    """Two small episodes, served as a zip file."""
    archive = write_replay(zipped_as="task/replay.zarr")
    archive.rename(site.folder / "task.zip")
    return PublicDataset(
        name="task",
        urls=(f"{site.url}/task.zip",),
        target="task/replay.zarr",
        arrays=ARRAYS,
        content_sha256=content_digest(site.folder / "task.zip", ARRAYS),
    )


def test_digest_is_of_the_content_alone(write_replay):
    paths = [
        write_replay(name="a.zarr"),
        write_replay(name="b.zarr", zarr_format=3, compressors=None),
        write_replay(name="c.zarr", zipped_as="deep/store.zarr"),
    ]
    assert len({content_digest(path, ARRAYS) for path in paths}) == 1
    assert content_digest(paths[0], ARRAYS) != content_digest(paths[0], ARRAYS[::-1])


def test_digest_sees_values_types_shapes_and_names(write_replay):
    ends = {"meta/episode_ends": np.array([2])}
    ones = np.ones((2, 2), np.float32)
    variants = [ones, ones * 2, ones.view(np.int32), ones.reshape(2, 2, 1)]
    digests = {
        content_digest(write_replay({"data/action": values, **ends}, name=f"{number}.zarr"), ["data/action"])
        for number, values in enumerate(variants)
    }
    assert len(digests) == len(variants)
    state = write_replay({"data/state": ones, **ends})
    assert content_digest(state, ["data/state"]) not in digests


def test_digest_known_answer(write_replay):
    path = write_replay({"data/action": np.array([[1, 2]], ">f4"), "meta/episode_ends": np.array([1])})
    expected = hashlib.sha256(b"data/action <f4 1,2\n" + bytes.fromhex("0000803f00000040")).hexdigest()
    assert content_digest(path, ["data/action"]) == expected


def test_installs_once(dataset, site, tmp_path):
    output = tmp_path / "data"
    target = install(dataset, output)
    assert target == output / "task/replay.zarr"
    assert read_zarr(target, {"state": ArraySource("state")}).num_episodes == 2
    assert sorted(path.name for path in output.rglob("*") if path.parent in (output, output / "task")) == [
        "replay.zarr",
        "task",
    ]
    before = target.stat().st_ino
    assert install(dataset, output) == target
    assert target.stat().st_ino == before
    assert len(site.requests) == 1


def test_mirrors_come_first_and_a_wrong_one_is_passed_over(dataset, site, tmp_path, write_replay, replay_arrays):
    (site.folder / "page.zip").write_text("<html>please log in</html>")
    replay_arrays["data/action"] += 1
    write_replay(zipped_as="task/replay.zarr").rename(site.folder / "other.zip")
    mirrors = [f"{site.url}/page.zip", f"{site.url}/other.zip"]
    target = install(dataset, tmp_path / "data", mirrors=mirrors)
    assert site.requests == ["/page.zip", "/other.zip", "/task.zip"]
    assert content_digest(target, ARRAYS) == dataset.content_sha256


def test_wrong_content_leaves_nothing_behind(dataset, site, tmp_path, write_replay, replay_arrays):
    replay_arrays["data/action"] += 1
    write_replay(zipped_as="task/replay.zarr").rename(site.folder / "task.zip")
    with pytest.raises(ValueError, match="arrays data/action, meta/episode_ends have sha256"):
        install(dataset, tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_never_touches_what_is_there(dataset, tmp_path):
    output = tmp_path / "data"
    (output / "task/replay.zarr").mkdir(parents=True)
    (output / "task/replay.zarr/mine").write_text("mine")
    with pytest.raises(FileExistsError, match="exists but is not the public data, move it away"):
        install(dataset, output)
    assert (output / "task/replay.zarr/mine").read_text() == "mine"


def test_takes_and_keeps_a_zip_file_that_is_there(dataset, site, tmp_path):
    output = tmp_path / "data"
    output.mkdir()
    shutil.copy(site.folder / "task.zip", output / "task.zip")
    install(dataset, output)
    assert (output / "task.zip").exists()
    assert site.requests == []


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "task/../../escaped", "task\\..\\escaped", "C:escaped"])
def test_refuses_names_that_lead_out(dataset, site, tmp_path, name):
    with zipfile.ZipFile(site.folder / "task.zip", "a") as archive:
        member = zipfile.ZipInfo()
        member.filename = name
        archive.writestr(member, "escaped")
    with pytest.raises(ValueError, match="unsafe name"):
        install(dataset, tmp_path / "data")
    assert not list(tmp_path.rglob("*escaped*"))


def test_refuses_links(dataset, site, tmp_path):
    with zipfile.ZipFile(site.folder / "task.zip", "a") as archive:
        member = zipfile.ZipInfo("task/replay.zarr/data/link")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc")
    with pytest.raises(ValueError, match=r"holds the link 'task/replay\.zarr/data/link'"):
        install(dataset, tmp_path / "data")


def test_refuses_damage_outside_the_digest(dataset, site, tmp_path):
    path = site.folder / "task.zip"
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("task/replay.zarr/data/keypoint/1.0.0")
    content = bytearray(path.read_bytes())
    content[member.header_offset + 30 + len(member.filename) + member.compress_size - 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged|cannot be unpacked"):
        install(dataset, tmp_path / "data")


def test_unpacks_only_the_store(dataset, site, tmp_path):
    with zipfile.ZipFile(site.folder / "task.zip", "a") as archive:
        archive.writestr("task/readme.txt", "not asked for")
    install(dataset, tmp_path / "data")
    assert not list((tmp_path / "data").rglob("readme.txt"))


# The command


def download_data(*words) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts/download_data.py"), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def test_command_fetches_pusht_from_a_mirror(real_data, site, tmp_path):
    store = real_data("pusht/pusht_cchi_v7_replay.zarr")
    with zipfile.ZipFile(site.folder / "pusht.zip", "w") as archive:
        for path in sorted(store.rglob("*")):
            if "img" not in path.parts:
                archive.write(path, Path("pusht") / store.name / path.relative_to(store))
    done = download_data("task=pusht", f"output={tmp_path / 'data'}", f"mirror={site.url}/pusht.zip")
    assert done.returncode == 0, done.stderr
    target = tmp_path / "data/pusht/pusht_cchi_v7_replay.zarr"
    assert done.stdout.strip() == str(target)
    assert read_zarr(target, {"state": ArraySource("state")}).num_steps == 25650


def test_real_pusht_data_has_the_digest(real_data):
    pusht = PUBLIC_DATASETS["pusht"]
    assert content_digest(real_data(pusht.target), pusht.arrays) == pusht.content_sha256


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=moon"], "error: task=moon has no public download: choose one of pusht\n"),
        (["pusht"], "error: expected task=..., output=... or mirror=..., not 'pusht'\n"),
    ],
)
def test_command_refuses(words, message):
    done = download_data(*words)
    assert (done.returncode, done.stderr) == (2, message)
