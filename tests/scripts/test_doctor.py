"""The doctor's screen, and what its checks find in machines that are made up."""

import importlib.util
import re
import subprocess
import sys
import venv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import envs
from envs import rendering
from envs.rendering import BackendProbe
from shortcut_policy import trials
from shortcut_policy.diagnosis import diagnose
from shortcut_policy.trials import Finding, try_apart, try_gpu, try_rollout

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path):
    """Make a checkout with the given dependencies and extras, tested with numpy 1.0."""

    def make(*dependencies, **extras):
        lines = ["[project]", 'name = "shortcut-policy"', 'requires-python = ">=3.11"']
        lines += [f"dependencies = {list(dependencies)}", "[project.optional-dependencies]"]
        lines += [f"{extra} = {list(requirements)}" for extra, requirements in extras.items()]
        (tmp_path / "pyproject.toml").write_text("\n".join(lines))
        (tmp_path / "constraints.txt").write_text("# tested\nnumpy==1.0\n")
        return tmp_path

    return make


def section(checkout, title):
    """The findings of one section by their parts; the other sections are not looked at."""
    return {f.part: f for name, findings in diagnose(checkout) if name.startswith(title) for f in findings}


def stand_in(monkeypatch, tmp_path, script):
    """Let new processes run a shell script instead of Python."""
    path = tmp_path / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(path))


def test_one_screen_says_it_all(run_command, monkeypatch):
    monkeypatch.setattr(envs, "task_names", lambda: ("pusht",))
    code, out, errors = run_command("doctor", "seconds=0.1")
    assert errors == ""
    lines = out.splitlines()
    assert len(lines) + len({*envs._TASKS} - {"pusht"}) <= 45
    assert max(map(len, lines)) < 100
    assert re.search(r"^  ok  python +3\.1[12]\.", out, re.MULTILINE)
    assert "torch==" in out
    assert "GL egl" in out
    assert code == (1 if "  !!  " in out else 0)
    assert lines[-1] == "Everything that is installed works." or code == 1
    if importlib.util.find_spec("gym_pusht"):
        assert re.search(r"  ok  pusht +[\d,]+ steps/s", out)


def test_it_runs_where_nothing_is_installed(tmp_path):
    venv.create(tmp_path / "bare", with_pip=False)
    python = next(path for path in (tmp_path / "bare").glob("*/python*") if path.stem == "python")
    run = subprocess.run([python, ROOT / "scripts/doctor.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (1, "")
    assert re.search(
        r"!!  package +shortcut-policy is not installed in this Python\n +-> pip install -e \.\n", run.stdout
    )
    assert re.search(r"!!  needed +missing: torch, numpy, .*\n(.*\n)*? +-> pip install -e \.\n", run.stdout)
    assert re.search(r"--  \[robosuite\] +not installed: pip install -e '\.\[robosuite\]'\n", run.stdout)
    assert re.search(r"--  GPU +not tried: PyTorch is not installed\n", run.stdout)
    assert re.search(r"--  all +not tried: No module named 'gymnasium'\n", run.stdout)
    assert run.stdout.endswith("2 to be mended: see !!\n")


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("task=lift", "expected seconds=... or rollout=..., not 'task=lift'"),
        ("seconds=soon", "seconds=soon is no duration"),
        ("seconds=nan", "seconds=nan is no duration"),
        ("rollout=lfit", "rollout=lfit is no environment: choose one of pusht, lift"),
    ],
)
def test_wrong_words(run_command, word, sentence):
    code, out, errors = run_command("doctor", word)
    assert (code, out) == (2, "")
    assert errors.startswith(sentence)


def test_help_explains_the_marks(run_command):
    code, out, _ = run_command("doctor", "--help")
    assert code == 0
    assert "ok  works" in out


def test_versions_are_held_against_the_project_and_its_tests(checkout):
    folder = checkout("numpy>=1.26", old=["numpy<1"], half=["numpy", "no-such-package"], none=["no-such-package"])
    found = section(folder, "Packages")
    version = found["needed"].text.removesuffix(" (tested: 1.0)").removeprefix("numpy==")
    assert found["needed"] == Finding("needed", "works", f"numpy=={version} (tested: 1.0)")
    assert found["[old]"] == Finding("[old]", "problem", f"numpy=={version} (needs <1)", "pip install 'numpy<1'")
    assert found["[half]"].state == "absent"
    assert found["[half]"].text.endswith(", missing: no-such-package")
    assert found["[half]"].remedy == "pip install -e '.[half]'"
    assert found["[none]"] == Finding("[none]", "absent", "not installed: pip install -e '.[none]'")


def test_a_package_that_is_needed_is_a_problem_where_it_is_missing(checkout):
    found = section(checkout("no-such-package>=2"), "Packages")["needed"]
    assert found == Finding("needed", "problem", "missing: no-such-package", "pip install -e .")


def test_data_is_counted_but_not_opened(checkout, monkeypatch):
    monkeypatch.delenv("SHORTCUT_DATA", raising=False)
    folder = checkout()
    assert section(folder, "Data")["folder"].state == "absent"
    (folder / "data/pusht/replay.zarr/inner.zarr").mkdir(parents=True)
    (folder / "data/lift.hdf5").touch()
    for name in ("a.hdf5", "b.hdf5", "readme.txt"):
        (folder / "data/pusht" / name).touch()
    assert section(folder, "Data")["contents"].text == "1 hdf5 in ., 2 hdf5 in pusht, 1 zarr in pusht"
    monkeypatch.setenv("SHORTCUT_DATA", str(folder / "elsewhere"))
    assert section(folder, "Data")["folder"].state == "problem"


@pytest.fixture
def gl(checkout, monkeypatch):
    """Find the GL part of a machine on which `working` backends draw and `choice` is chosen (an error is raised)."""
    monkeypatch.setattr("shortcut_policy.diagnosis._version", lambda name: "1.0")
    monkeypatch.setattr("shortcut_policy.diagnosis.try_apart", lambda *_: Finding("GPU", "absent", "none"))
    monkeypatch.setattr(rendering, "default_backends", lambda: ("egl", "osmesa"))

    def find(working, choice):
        def choose():
            if isinstance(choice, Exception):
                raise choice
            return choice

        monkeypatch.setattr(rendering, "choose_backend", choose)
        monkeypatch.setattr(
            rendering, "probe", lambda name: BackendProbe(name, None if name in working else "why", "x")
        )
        found = section(checkout(), "Machine")
        return {part: found[part] for part in found if "GL" in part}

    return find


def test_gl_is_a_problem_only_where_nothing_draws(gl):
    assert gl(["egl"], "egl") == {
        "GL egl": Finding("GL egl", "works", "draws with x"),
        "GL osmesa": Finding("GL osmesa", "absent", "why: apt-get install libosmesa6"),
    }
    assert {part: found.state for part, found in gl([], ImportError("neither")).items()} == {
        "GL egl": "problem",
        "GL osmesa": "problem",
    }


def test_what_the_user_says_of_gl_is_told(gl):
    assert gl(["egl"], ValueError("no backend"))["MUJOCO_GL"] == Finding("MUJOCO_GL", "problem", "no backend")
    found = gl([], "glfw")
    assert (found["GL glfw"].state, found["GL egl"].state) == ("works", "absent")


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("kill -SEGV $$", "crashes: SIGSEGV"),
        ("echo noise; echo 'Error: the reason' >&2; exit 1", "crashes: Error: the reason"),
        ("exec sleep 60", "hangs (given up after 0.5 s)"),
    ],
)
def test_a_trial_that_does_not_come_back_is_reported(monkeypatch, tmp_path, script, text):
    stand_in(monkeypatch, tmp_path, script)
    assert try_apart(tmp_path, "lift", "try_rollout", "lift", 1, timeout=0.5) == Finding("lift", "problem", text)


def test_a_trial_may_print_before_its_finding(monkeypatch, tmp_path):
    stand_in(monkeypatch, tmp_path, """echo noise; echo '{"part": "lift", "state": "works", "text": "well"}'""")
    assert try_apart(tmp_path, "lift", "try_rollout", "lift", 1) == Finding("lift", "works", "well")


def raising(error, cause=None):
    def make(name):
        raise error from cause

    return make


def test_rollouts_tell_what_is_not_installed_from_what_is_broken(monkeypatch):
    sentence = "this needs gym_x (...): install it with `pip install -e .[x]`"
    missing = ModuleNotFoundError("No module named 'gym_x'", name="gym_x")
    monkeypatch.setattr(envs, "make", raising(ImportError(sentence), missing))
    assert try_rollout("x", 1) == Finding("x", "absent", "there is no module gym_x: pip install -e .[x]")
    monkeypatch.setattr(envs, "make", raising(ImportError(sentence), ImportError("libGL.so.1: cannot open")))
    assert try_rollout("x", 1) == Finding("x", "problem", sentence)
    monkeypatch.setattr(envs, "make", raising(OSError("no memory")))
    found = try_rollout("x", 1)
    assert (found.state, found.text) == ("problem", "OSError: no memory")
    assert found.remedy.endswith("doctor.py rollout=x")


def fake_torch(available=False, cuda="13.0", major=9):
    def init():
        raise RuntimeError("The NVIDIA driver is too old (found version 11040). Please update")

    gpu = SimpleNamespace(name="NVIDIA H200", total_memory=140 * 2**30, major=major, minor=0)
    return SimpleNamespace(
        version=SimpleNamespace(cuda=cuda, hip=None),
        full=lambda size, value, device: np.full(size, value),
        cuda=SimpleNamespace(
            is_available=lambda: available, init=init, device_count=lambda: 2, get_device_properties=lambda index: gpu
        ),
    )


@pytest.mark.parametrize(
    ("torch", "driver", "visible", "state", "text"),
    [
        (fake_torch(), None, None, "absent", "none: training runs on the CPU"),
        (fake_torch(), "570.1", "", "absent", "hidden by CUDA_VISIBLE_DEVICES='': training runs on the CPU"),
        (fake_torch(cuda=None), "570.1", None, "problem", "there is one (driver 570.1), but this PyTorch is built for"),
        (fake_torch(), "470.1", None, "problem", "PyTorch's CUDA 13.0 does not run with the driver 470.1: The NVIDIA"),
        (
            fake_torch(True),
            "570.1",
            "0,1",
            "works",
            "2 x NVIDIA H200, 140 GiB, capability 9.0, bf16, CUDA 13.0, driver",
        ),
        (fake_torch(True, major=7), "570.1", None, "works", "2 x NVIDIA H200, 140 GiB, capability 7.0, no bf16"),
    ],
)
def test_gpus(monkeypatch, torch, driver, visible, state, text):
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setattr(trials, "_nvidia_driver", lambda: driver)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = try_gpu()
    assert found.state == state
    assert found.text.startswith(text)
