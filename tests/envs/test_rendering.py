"""GL is found, or its absence explained; nothing of it is loaded before a picture is wanted."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from envs import rendering
from envs.rendering import BackendProbe, choose_backend, importing_robosuite, probe

ROOT = Path(__file__).parents[2]
NEEDS_ROBOSUITE = pytest.mark.skipif(importlib.util.find_spec("robosuite") is None, reason="robosuite not installed")


@pytest.fixture
def no_choice(monkeypatch):
    """An environment in which nothing about GL has been said or found yet."""
    for name in ("MUJOCO_GL", "MUJOCO_EGL_DEVICE_ID", "SHORTCUT_GL_PROBED", "PYOPENGL_PLATFORM"):
        monkeypatch.setenv(name, "")  # so that it is restored, whatever the test writes
        monkeypatch.delenv(name)
    monkeypatch.setattr(rendering.platform, "system", lambda: "Linux")


@pytest.fixture
def backends(no_choice, monkeypatch):
    """Let only the named backends draw, and record which are tried."""
    tried = []

    def only(*working):
        def fake(backend):
            tried.append(backend)
            if backend in working:
                return BackendProbe(backend, None, "a renderer", 3 if backend == "egl" else None)
            return BackendProbe(backend, f"no lib{backend}")

        monkeypatch.setattr(rendering, "probe", fake)
        monkeypatch.setattr(rendering.importlib.util, "find_spec", lambda name: name)
        return tried

    return only


def python(program, **environment):
    """Run a program in a process of its own: (exit code, output, errors)."""
    run = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return run.returncode, run.stdout, run.stderr


def test_egl_comes_first_and_workers_need_not_probe_again(backends):
    tried = backends("egl", "osmesa")
    assert choose_backend() == "egl"
    assert (os.environ["MUJOCO_GL"], os.environ["MUJOCO_EGL_DEVICE_ID"]) == ("egl", "3")
    assert choose_backend() == "egl"
    assert tried == ["egl"], "once: the environment, which workers inherit, knows the rest"


def test_osmesa_steps_in_for_egl(backends):
    tried = backends("osmesa")
    assert choose_backend() == "osmesa"
    assert tried == ["egl", "osmesa"]
    assert os.environ["MUJOCO_GL"] == "osmesa"
    assert "MUJOCO_EGL_DEVICE_ID" not in os.environ


def test_without_any_backend_the_packages_are_named(backends):
    backends()
    with pytest.raises(ImportError, match=r"no libegl \(.*libegl1 libgl1-mesa-dri.*no libosmesa \(.*libosmesa6"):
        choose_backend()
    assert "MUJOCO_GL" not in os.environ


@pytest.mark.parametrize("wanted", ["osmesa", " OSMesa", "glfw"])
def test_the_users_choice_counts(backends, monkeypatch, wanted):
    tried = backends("egl", "osmesa", "glfw")
    monkeypatch.setenv("MUJOCO_GL", wanted)
    assert choose_backend() == wanted.strip().lower()
    assert tried == [wanted.strip().lower()]


def test_the_users_choice_is_not_replaced_where_it_fails(backends, monkeypatch):
    tried = backends("egl")
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setenv("SHORTCUT_GL_PROBED", "egl")  # found before the user changed their mind
    with pytest.raises(ImportError, match=r"MUJOCO_GL=osmesa .*unset MUJOCO_GL.*no libosmesa .*apt-get install"):
        choose_backend()
    assert tried == ["osmesa"]


@pytest.mark.parametrize(("wanted", "sentence"), [("vulkan", "=vulkan is no GL backend"), ("off", "forbids pictures")])
def test_a_choice_that_cannot_be(backends, monkeypatch, wanted, sentence):
    backends("egl")
    monkeypatch.setenv("MUJOCO_GL", wanted)
    with pytest.raises(ValueError, match=f"{sentence}: unset it, or set one of egl, osmesa"):
        choose_backend()


def test_without_mujoco_it_is_what_is_missing(no_choice, monkeypatch):
    monkeypatch.setattr(rendering.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="need MuJoCo: install"):
        choose_backend()


@pytest.mark.parametrize(
    ("driver", "failure"),
    [
        ("kill -SEGV $$", "the driver crashes (SIGSEGV)"),
        ("exec sleep 60", "the driver hangs (given up after 0.5 s)"),
        ("echo loading; echo 'no such driver' >&2; exit 3", "no such driver"),
        ("exit 3", "exit code 3"),
    ],
)
def test_a_driver_that_misbehaves_is_reported(monkeypatch, tmp_path, driver, failure):
    stand_in = tmp_path / "python"
    stand_in.write_text(f"#!/bin/sh\n{driver}\n")
    stand_in.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stand_in))
    assert probe.__wrapped__("egl", timeout=0.5) == BackendProbe("egl", failure)


def test_the_backend_that_is_found_names_what_draws(gl_backend):
    found = probe(gl_backend)
    assert found.failure is None
    assert found.renderer


@pytest.mark.parametrize("devices", ["", "GPU-8932f937"])
def test_hidden_gpus_do_not_hide_software_rendering(no_choice, monkeypatch, devices):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)  # robosuite, left alone, would take these for numbers
    assert probe.__wrapped__("egl") == probe("egl")


def test_a_broken_egl_leads_to_osmesa_or_to_the_sentence(no_choice):
    program = "from envs.rendering import choose_backend; print(choose_backend())"
    code, out, errors = python(program, __EGL_VENDOR_LIBRARY_FILENAMES="/nowhere")
    if code == 0:
        assert out.strip() == "osmesa"
    else:
        assert errors.splitlines()[-1].startswith("ImportError: no GL backend draws pictures here: egl: ")
        assert "libosmesa6" in errors


STATE_ONLY = """
import os, sys
from envs.rendering import importing_robosuite, prepare_rendering

def gl_libraries():
    return {line.split()[-1] for line in open("/proc/self/maps") if any(part in line for part in LIBRARIES)}

LIBRARIES = ("/libGL", "/libEGL", "/libOSMesa", "/libOpenGL", "/libX11", "/libglfw")
environment = dict(os.environ)
with importing_robosuite():
    import robosuite
assert dict(os.environ) == environment, os.environ
env = robosuite.make("Lift", "Panda", has_renderer=False, has_offscreen_renderer=False, use_camera_obs=False)
env.reset()
env.step(env.action_spec[0])
assert gl_libraries() == set(), gl_libraries()
assert not {"OpenGL", "cv2", "glfw"} & sys.modules.keys()
"""
PICTURES = """
import mujoco, numpy
assert prepare_rendering() == BACKEND
from robosuite.utils.binding_utils import MjRenderContextOffscreen
env.sim.add_render_context(MjRenderContextOffscreen(env.sim, device_id=-1))
picture = env.sim.render(width=64, height=48, camera_name="agentview")
assert picture.shape == (48, 64, 3)
assert picture.mean() > 20 and picture.std() > 10, "black, or one colour"
assert gl_libraries()

renderer = mujoco.Renderer(env.sim.model._model, 48, 64)
renderer.update_scene(env.sim.data._data, "agentview")
again = renderer.render()[::-1].astype(int)
assert numpy.abs(again - picture).mean() < 40, "MuJoCo's own renderer sees the same scene"

from robosuite.renderers.viewer import mjviewer_renderer, opencv_renderer
assert callable(opencv_renderer.cv2.imshow) and callable(mjviewer_renderer.viewer.launch_passive)
import cv2, mujoco.viewer
assert cv2.imshow is opencv_renderer.cv2.imshow and mujoco.viewer is sys.modules["mujoco.viewer"]
"""


@NEEDS_ROBOSUITE
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="no /proc/self/maps")
def test_state_only_loads_no_gl_and_prints_nothing(no_choice):
    code, out, errors = python(STATE_ONLY)
    assert (code, out, errors) == (0, "", "")


@NEEDS_ROBOSUITE
def test_rendering_can_be_switched_on_later(gl_backend):
    """With the backend in the environment already, as in a worker: it still must not be loaded before it is used."""
    code, out, errors = python(f"BACKEND = {gl_backend!r}\n{STATE_ONLY}\n{PICTURES}", MUJOCO_GL=gl_backend)
    assert code == 0, errors
    assert out == ""


def test_robosuite_that_is_imported_already_is_left_alone(monkeypatch):
    monkeypatch.setitem(sys.modules, "robosuite", object())
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    with importing_robosuite():
        assert os.environ["MUJOCO_GL"] == "glfw"
        assert getattr(sys.modules.get("cv2"), "__spec__", True) is not None
