import functools
import hashlib
import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import h5py
import numpy as np
import pytest

from shortcut_policy.data.public_hdf5 import PublicHDF5

LENGTHS = (4, 6, 5)


def write_demos(path: Path, env_name: str = "Lift", kind: str = "low_dim") -> Path:
    """Write three demonstrations in robomimic's layout."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": env_name, "type": 1, "env_kwargs": {}})
        data.attrs["total"] = sum(LENGTHS)
        for number, length in enumerate(LENGTHS):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = length
            demo.attrs["model_file"] = "<mujoco/>"
            demo["actions"] = np.full((length, 7), number, np.float64)
            demo["states"] = np.zeros((length, 32))
            if kind == "low_dim":
                demo["obs/robot0_eef_pos"] = np.zeros((length, 3))
                demo["obs/object"] = np.zeros((length, 10))
    return path


@dataclass
class Site:
    """A folder served on 127.0.0.1, what was asked of it, and the sha256 that its answers publish."""

    folder: Path
    url: str = ""
    requests: list[str] = field(default_factory=list)
    sha256: str = ""


@pytest.fixture
def site(monkeypatch, tmp_path) -> Iterator[Site]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    site = Site(tmp_path / "site")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            site.requests.append(self.path)

        def end_headers(self):
            if site.sha256:
                self.send_header("X-Linked-Etag", f'"{site.sha256}"')
            super().end_headers()

    handler = functools.partial(Handler, directory=str(site.folder))
    listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    site.url = f"http://127.0.0.1:{listening.server_port}"
    yield site
    listening.shutdown()
    listening.server_close()
    thread.join()


@pytest.fixture
def lift(site) -> PublicHDF5:
    """The set that the site offers; nothing about its bytes is known beforehand."""
    write_demos(site.folder / "lift.hdf5")
    return PublicHDF5("lift", "ph", "low_dim", "v15", env_name="Lift", num_demos=3, urls=(f"{site.url}/lift.hdf5",))


def sha256_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_installs_once_and_records_the_sha256(lift, site, tmp_path):
    target = lift.install(tmp_path / "data")
    assert target == tmp_path / "data/robomimic/lift/ph/low_dim_v15.hdf5"
    assert target.read_bytes() == (site.folder / "lift.hdf5").read_bytes()
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name, f"{target.name}.sha256"]
    verified = subprocess.run(["sha256sum", "-c", f"{target.name}.sha256"], cwd=target.parent, capture_output=True)
    assert verified.stdout == b"low_dim_v15.hdf5: OK\n"
    assert lift.install(tmp_path / "data") == target
    assert site.requests == ["/lift.hdf5"]


def test_a_file_that_changed_is_not_taken_for_the_one_recorded(lift, tmp_path):
    target = lift.install(tmp_path / "data")
    with h5py.File(target, "a") as file:
        file["data/demo_1/actions"][0, 0] = 0.5  # nothing but the checksum shows it
    changed = target.read_bytes()
    with pytest.raises(FileExistsError, match="exists but is not the file wanted, move it away: its sha256 is"):
        lift.install(tmp_path / "data")
    assert target.read_bytes() == changed


def test_a_known_sha256_outweighs_the_record(lift, tmp_path):
    target = lift.install(tmp_path / "data")
    known = replace(lift, sha256="f" * 64)
    with pytest.raises(FileExistsError, match=f"its sha256 is {sha256_of(target)} instead of {'f' * 64}"):
        known.install(tmp_path / "data")


def test_a_record_without_its_file_binds_nothing(lift, site, tmp_path):
    target = lift.install(tmp_path / "data")
    target.unlink()
    with h5py.File(site.folder / "lift.hdf5", "a") as file:
        file["data/demo_1/actions"][0, 0] = 0.5
    assert lift.install(tmp_path / "data").read_bytes() == (site.folder / "lift.hdf5").read_bytes()
    assert target.with_name("low_dim_v15.hdf5.sha256").read_text().startswith(sha256_of(target))


@pytest.mark.parametrize("text", ["", "no checksum\n", f"{'f' * 64}  other.hdf5\n"])
def test_refuses_a_record_of_another_form(lift, tmp_path, text):
    target = lift.install(tmp_path / "data")
    target.with_name("low_dim_v15.hdf5.sha256").write_text(text)
    with pytest.raises(ValueError, match=r"does not state the sha256 of low_dim_v15\.hdf5: delete it if you trust"):
        lift.install(tmp_path / "data")


def test_takes_a_file_that_came_another_way(lift, site, tmp_path):
    write_demos(tmp_path / "data" / lift.place)
    lift.install(tmp_path / "data")
    assert site.requests == []
    assert not list(tmp_path.rglob("*.sha256"))


def test_verifies_against_the_sha256_that_the_server_publishes(lift, site, tmp_path):
    site.sha256 = sha256_of(site.folder / "lift.hdf5")
    with h5py.File(site.folder / "lift.hdf5", "a") as file:
        file["data/demo_1/actions"][0, 0] = 0.5
    with pytest.raises(ValueError, match=f"instead of {site.sha256}"):
        lift.install(tmp_path / "data")
    site.sha256 = sha256_of(site.folder / "lift.hdf5")
    assert lift.install(tmp_path / "data").exists()


def test_passes_over_wrong_mirrors(lift, site, tmp_path):
    content = (site.folder / "lift.hdf5").read_bytes()
    (site.folder / "page").write_text("<!DOCTYPE html><title>Please log in</title>")
    (site.folder / "truncated").write_bytes(content[:-100])
    (site.folder / "empty").write_bytes(b"")
    write_demos(site.folder / "can", "PickPlaceCan")
    mirrors = [f"{site.url}/{name}" for name in ("absent", "page", "truncated", "empty", "can")]
    assert lift.install(tmp_path / "data", mirrors=mirrors).read_bytes() == content
    with pytest.raises(ValueError, match="could not download") as wrong:
        replace(lift, urls=tuple(mirrors)).install(tmp_path / "other")
    for reason in (
        "absent: the server answered 404",
        "page: it is no whole HDF5 file, it begins with b'<!DOCTYPE html><'",
        r"truncated: it is no whole HDF5 file, it begins with b'\x89HDF",
        "empty: it is no whole HDF5 file, it begins with b''",
        "can: its demonstrations are of 'PickPlaceCan' instead of 'Lift'",
    ):
        assert reason in str(wrong.value)
    assert list((tmp_path / "other/robomimic/lift/ph").iterdir()) == []


# The content


def test_accepts_both_kinds(lift, tmp_path):
    lift.check(write_demos(tmp_path / "low_dim.hdf5"))
    replace(lift, kind="demo").check(write_demos(tmp_path / "demo.hdf5", kind="demo"))
    with pytest.raises(ValueError, match=r"'demo_0' in it is not complete: 4 rows of actions, but \{'obs': 0\}"):
        lift.check(tmp_path / "demo.hdf5")


def set_attribute(path, name, value):
    def change(file):
        file[path].attrs[name] = value

    return change


def replace_item(path, value):
    def change(file):
        del file[path]
        file[path] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.move("data", "other"), "it has no group 'data'"),
        (replace_item("data", np.zeros(3)), "it has no group 'data'"),
        (lambda file: file["data"].attrs.pop("env_args"), "its env_args do not state an env_name"),
        (set_attribute("data", "env_args", "{"), "its env_args do not state an env_name"),
        (set_attribute("data", "env_args", "[]"), "its env_args do not state an env_name"),
        (lambda file: file.pop("data/demo_2"), "it holds 2 demonstrations instead of 3"),
        (lambda file: file["data"].create_group("demo_3"), "it holds 4 demonstrations instead of 3"),
        (set_attribute("data", "total", 16), "it declares 16 steps in all but holds 15"),
        (lambda file: file.pop("data/demo_2/actions"), "'demo_2' in it has no actions"),
        (replace_item("data/demo_2", np.zeros(3)), "'demo_2' in it has no actions"),
        (replace_item("data/demo_2/actions", np.zeros((0, 7))), "'demo_2' in it has no actions"),
        (replace_item("data/demo_2/actions", np.zeros((4, 7))), "not complete: 4 rows .* 'num_samples': 5"),
        (set_attribute("data/demo_2", "num_samples", 6), r"not complete: 5 rows .* \{'num_samples': 6\}"),
        (lambda file: file["data/demo_2"].attrs.pop("num_samples"), r"not complete: 5 rows .* \{'num_samples': 0\}"),
        (set_attribute("data/demo_2", "num_samples", [5, 5]), "it is no whole HDF5 file"),
        (replace_item("data/demo_2/obs/object", np.zeros((4, 10))), r"not complete: 5 rows .* \{'object': 4\}"),
        (replace_item("data/demo_2/obs", np.zeros(5)), r"not complete: 5 rows .* \{'obs': 0\}"),
    ],
)
def test_refuses_other_content(lift, tmp_path, change, message):
    path = write_demos(tmp_path / "demos.hdf5")
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(ValueError, match=message):
        lift.check(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.pop("data/demo_2/states"), r"not complete: 5 rows .* \{'states': 0\}"),
        (lambda file: file["data/demo_2"].attrs.pop("model_file"), "'demo_2' in it has no model_file"),
    ],
)
def test_refuses_raw_demonstrations_that_cannot_be_replayed(lift, tmp_path, change, message):
    path = write_demos(tmp_path / "demos.hdf5", kind="demo")
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(ValueError, match=message):
        replace(lift, kind="demo").check(path)
