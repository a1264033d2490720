import dataclasses
import functools
import hashlib
import http.server
import importlib.util
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

from shortcut_policy.data.array_source import ArraySource
from shortcut_policy.data.public_archive import PublicArchive, content_digest
from shortcut_policy.data.public_datasets import PUSHT, ROBOMIMIC, select_datasets
from shortcut_policy.data.zarr_replay import read_zarr

REPOSITORY = Path(__file__).parents[2]
ARRAYS = ("data/action", "meta/episode_ends")
TASKS = ["lift", "can", "square", "transport", "tool_hang"]


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
def dataset(write_replay, site) -> PublicArchive:
    """Two small episodes, served as a zip file."""
    archive = write_replay(zipped_as="task/replay.zarr")
    archive.rename(site.folder / "task.zip")
    return PublicArchive(
        path="task.zip",
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
    target = dataset.install(output)
    assert target == output / "task/replay.zarr"
    assert read_zarr(target, {"state": ArraySource("state")}).num_episodes == 2
    assert sorted(path.name for path in output.rglob("*") if path.parent in (output, output / "task")) == [
        "replay.zarr",
        "task",
    ]
    before = target.stat().st_ino
    assert dataset.install(output) == target
    assert target.stat().st_ino == before
    assert len(site.requests) == 1


def test_mirrors_come_first_and_a_wrong_one_is_passed_over(dataset, site, tmp_path, write_replay, replay_arrays):
    (site.folder / "page.zip").write_text("<html>please log in</html>")
    replay_arrays["data/action"] += 1
    write_replay(zipped_as="task/replay.zarr").rename(site.folder / "other.zip")
    mirrors = [f"{site.url}/page.zip", f"{site.url}/other.zip"]
    target = dataset.install(tmp_path / "data", mirrors=mirrors)
    assert site.requests == ["/page.zip", "/other.zip", "/task.zip"]
    assert content_digest(target, ARRAYS) == dataset.content_sha256


def test_wrong_content_leaves_nothing_behind(dataset, site, tmp_path, write_replay, replay_arrays):
    replay_arrays["data/action"] += 1
    write_replay(zipped_as="task/replay.zarr").rename(site.folder / "task.zip")
    with pytest.raises(ValueError, match="arrays data/action, meta/episode_ends have sha256"):
        dataset.install(tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []


def test_never_touches_what_is_there(dataset, tmp_path):
    output = tmp_path / "data"
    (output / "task/replay.zarr").mkdir(parents=True)
    (output / "task/replay.zarr/mine").write_text("mine")
    with pytest.raises(FileExistsError, match="exists but is not the public data, move it away"):
        dataset.install(output)
    assert (output / "task/replay.zarr/mine").read_text() == "mine"


def test_takes_and_keeps_a_zip_file_that_is_there(dataset, site, tmp_path):
    output = tmp_path / "data"
    output.mkdir()
    shutil.copy(site.folder / "task.zip", output / "task.zip")
    dataset.install(output)
    assert (output / "task.zip").exists()
    assert site.requests == []


@pytest.mark.parametrize("name", ["../escaped", "/escaped", "task/../../escaped", "task\\..\\escaped", "C:escaped"])
def test_refuses_names_that_lead_out(dataset, site, tmp_path, name):
    with zipfile.ZipFile(site.folder / "task.zip", "a") as archive:
        member = zipfile.ZipInfo()
        member.filename = name
        archive.writestr(member, "escaped")
    with pytest.raises(ValueError, match="unsafe name"):
        dataset.install(tmp_path / "data")
    assert not list(tmp_path.rglob("*escaped*"))


def test_refuses_links(dataset, site, tmp_path):
    with zipfile.ZipFile(site.folder / "task.zip", "a") as archive:
        member = zipfile.ZipInfo("task/replay.zarr/data/link")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc")
    with pytest.raises(ValueError, match=r"holds the link 'task/replay\.zarr/data/link'"):
        dataset.install(tmp_path / "data")


def test_refuses_damage_outside_the_digest(dataset, site, tmp_path):
    path = site.folder / "task.zip"
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo("task/replay.zarr/data/keypoint/1.0.0")
    content = bytearray(path.read_bytes())
    content[member.header_offset + 30 + len(member.filename) + member.compress_size - 3] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged|cannot be unpacked"):
        dataset.install(tmp_path / "data")


def test_unpacks_only_the_store(dataset, site, tmp_path):
    with zipfile.ZipFile(site.folder / "task.zip", "a") as archive:
        archive.writestr("task/readme.txt", "not asked for")
    dataset.install(tmp_path / "data")
    assert not list((tmp_path / "data").rglob("readme.txt"))


# The command


@pytest.fixture
def command():
    """The command as a module, whose table can be replaced."""
    spec = importlib.util.spec_from_file_location("download_data", REPOSITORY / "scripts/download_data.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_command_fetches_pusht_from_a_mirror(real_data, site, tmp_path):
    store = real_data("pusht/pusht_cchi_v7_replay.zarr")
    with zipfile.ZipFile(site.folder / "pusht.zip", "w") as archive:
        for path in sorted(store.rglob("*")):
            if "img" not in path.parts:
                archive.write(path, Path("pusht") / store.name / path.relative_to(store))
    words = ["task=pusht", f"output={tmp_path / 'data'}", f"mirror={site.url}/pusht.zip"]
    done = subprocess.run(
        [sys.executable, str(REPOSITORY / "scripts/download_data.py"), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    target = tmp_path / "data/pusht/pusht_cchi_v7_replay.zarr"
    assert done.stdout.strip() == str(target)
    assert read_zarr(target, {"state": ArraySource("state")}).num_steps == 25650


def test_real_pusht_data_has_the_digest(real_data):
    assert content_digest(real_data(PUSHT.target), PUSHT.arrays) == PUSHT.content_sha256


def test_command_goes_on_when_a_file_fails(command, dataset, site, tmp_path, monkeypatch, capsys):
    lift = dataclasses.replace(select_datasets("lift", "ph")[0], urls=(f"{site.url}/gone.hdf5",))
    monkeypatch.setattr(command, "select_datasets", lambda *words: (lift, dataset))
    page = site.folder / "mirror" / lift.path
    page.parent.mkdir(parents=True)
    page.write_text("<html>please log in</html>")
    assert command.main(["task=all", f"output={tmp_path / 'data'}", f"mirror={site.url}/mirror/"]) == 1
    assert list(dict.fromkeys(site.requests)) == [f"/mirror/{lift.path}", "/gone.hdf5", "/mirror/task.zip", "/task.zip"]
    printed = capsys.readouterr()
    assert "error: could not download low_dim_v15.hdf5" in printed.err
    assert "the server offers 26 bytes instead of 21084088" in printed.err
    assert "the server answered 404" in printed.err
    assert printed.out == f"{tmp_path / 'data/task/replay.zarr'}\n"
    assert command.main(["task=all", f"output={tmp_path / 'data'}", f"mirror={site.url}/task.zip"]) == 2


def test_command_says_where_to_put_a_file(command, site, tmp_path, monkeypatch, capsys):
    lift = dataclasses.replace(select_datasets("lift", "ph")[0], urls=(f"{site.url}/gone.hdf5",))
    monkeypatch.setattr(command, "select_datasets", lambda *words: (lift,))
    assert command.main(["task=lift", f"output={tmp_path / 'data'}"]) == 1
    place = tmp_path / "data/robomimic/lift/ph/low_dim_v15.hdf5"
    assert f"try again, or put the file at {place}\n" in capsys.readouterr().err


def test_command_takes_no_file_that_is_not_the_public_one(command, tmp_path, capsys):
    path = tmp_path / "data/robomimic/lift/mh/low_dim_v15.hdf5"
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    assert command.main(["task=lift", "source=mh", f"output={tmp_path / 'data'}"]) == 1
    printed = capsys.readouterr()
    assert "exists but is not the file wanted, move it away: it has 4 bytes instead of 50689696" in printed.err
    assert (printed.out, path.read_text()) == ("", "mine")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=moon"], "task=moon has no public download: choose one of pusht, lift, can, square, "),
        (["pusht"], "expected words like task=..., source=..., kind=..., "),
        (["task=all", "source=ph", "mirror=http://x/y"], "mirror=http://x/y is one file: for task=all give a folder"),
    ],
)
def test_command_refuses(command, capsys, words, message):
    assert command.main(words) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")


def test_help_lists_every_set(command, capsys):
    assert command.main(["--help"]) == 0
    listing = capsys.readouterr().out
    for task, source, kind, _ in ROBOMIMIC:
        assert f"task={task} source={source} kind={kind}" in listing
    assert "300   50.7 MB  d8bc0de2" in listing


# The table


def test_every_set_has_its_own_place():
    assert len(ROBOMIMIC) == (5 + 4) * 2 * 2
    assert len({dataset.place for dataset in ROBOMIMIC.values()}) == len(ROBOMIMIC)
    for dataset in ROBOMIMIC.values():
        assert dataset.num_demos == {"ph": 200, "mh": 300}[dataset.source]
        assert all(url.endswith(f"/{dataset.path}") for url in dataset.urls)
        assert (dataset.sha256 is None) == (dataset.size is None)
    known = [dataset.sha256 for dataset in ROBOMIMIC.values() if dataset.sha256]
    assert len(set(known)) == len(known) == 10
    assert all(len(sha256) == 64 for sha256 in known)


def test_addresses():
    (lift,) = select_datasets("lift", "ph")
    assert lift.urls == (
        "https://huggingface.co/datasets/robomimic/robomimic_datasets/resolve/"
        "74fa018461f479cd9fd15b924a16103012096203/v1.5/lift/ph/low_dim_v15.hdf5",
        "https://huggingface.co/datasets/robomimic/robomimic_datasets/resolve/main/v1.5/lift/ph/low_dim_v15.hdf5",
    )
    (can,) = select_datasets("can", "mh", "demo", "v141")
    assert can.urls == ("http://downloads.cs.stanford.edu/downloads/rt_benchmark/can/mh/demo_v141.hdf5",)
    assert (lift.place, can.place) == ("robomimic/lift/ph/low_dim_v15.hdf5", "robomimic/can/mh/demo_v141.hdf5")


def test_addresses_are_those_of_robomimic():
    """The installed registry, 0.3.0, has version v141."""
    registry = pytest.importorskip("robomimic").DATASET_REGISTRY
    for (task, source, kind, version), dataset in ROBOMIMIC.items():
        if version == "v141":
            assert dataset.urls == (registry[task][source]["raw" if kind == "demo" else kind]["url"],)


def test_selection():
    assert select_datasets("pusht") == (PUSHT,)
    assert [dataset.task for dataset in select_datasets("all", "ph")] == TASKS
    assert [dataset.task for dataset in select_datasets("all", "mh", "demo")] == TASKS[:4]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["moon"], "task=moon has no public download: choose one of pusht, lift, can, square, transport, tool_hang"),
        (["pusht", "ph"], "task=pusht is one data set: leave out source, kind and version"),
        (["lift"], "task=lift comes from several sources: choose source=ph or source=mh"),
        (["lift", "mg"], "source=mg has no public download: choose source=ph or source=mh"),
        (["lift", "ph", "image"], "kind=image has no public download: choose kind=low_dim or kind=demo"),
        (["lift", "ph", "demo", "v1"], "version=v1 has no public download: choose version=v15 or version=v141"),
        (["tool_hang", "mh"], "task=tool_hang was not recorded with source=mh: choose source=ph"),
    ],
)
def test_selection_refuses(words, message):
    with pytest.raises(ValueError, match=message):
        select_datasets(*words)
