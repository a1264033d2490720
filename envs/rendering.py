"""Offscreen OpenGL for MuJoCo: found without a display, and kept out of processes that draw nothing.

MuJoCo and robosuite settle on a GL backend once, when they are imported, by the environment variable MUJOCO_GL, and
robosuite takes EGL unless told otherwise. Here the decision falls when the first picture is wanted:

    with importing_robosuite():
        import robosuite  # loads no GL, prints nothing
    prepare_rendering()  # only if something will be drawn; now or at any time later
"""

import functools
import importlib
import importlib.util
import json
import logging
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

__all__ = ["BackendProbe", "choose_backend", "default_backends", "importing_robosuite", "prepare_rendering", "probe"]

_REMEDIES = MappingProxyType(
    {
        "egl": "apt-get install libegl1 libgl1-mesa-dri, or with an NVIDIA GPU the driver's libEGL "
        "(in a container NVIDIA_DRIVER_CAPABILITIES=all)",
        "osmesa": "apt-get install libosmesa6",
        "glfw": "needs a display",
        "glx": "needs a display",
    }
)
_UNDECIDED = ("", "enable", "enabled", "on", "true", "1")  # MuJoCo's words, as those below
_OFF = ("disable", "disabled", "off", "false", "0")
_FOUND_TO_WORK = "SHORTCUT_GL_PROBED"  # environment variable: the value of MUJOCO_GL that needs no probe any more
_UNUSED_WITHOUT_WINDOW = ("cv2", "mujoco.viewer")  # OpenCV's window system loads libGL, the viewer takes 0.1 s


@dataclass(frozen=True)
class BackendProbe:
    """What came of drawing a picture with a GL backend.

    Attributes:
        backend: "egl", "osmesa", ..., a value of MUJOCO_GL.
        failure: why it does not draw, in a few words; None where it does.
        renderer: the driver's name for what draws, such as "llvmpipe (LLVM 15.0.6, 256 bits)".
        device: number of the EGL device; None for other backends.
    """

    backend: str
    failure: str | None
    renderer: str = ""
    device: int | None = None

    @property
    def remedy(self) -> str:
        """What to do where the backend does not draw."""
        return _REMEDIES.get(self.backend, "install a graphics driver")


def default_backends() -> tuple[str, ...]:
    """The backends of this operating system that need no display, best first."""
    return {"Darwin": ("cgl",), "Windows": ("wgl",)}.get(platform.system(), ("egl", "osmesa"))


@functools.cache
def probe(backend: str, timeout: float = 60) -> BackendProbe:
    """Draw a picture in a process of its own, which may crash, or hang for `timeout` seconds; once per process."""
    program = Path(__file__).with_name("gl_probe.py")
    try:
        run = subprocess.run(
            [sys.executable, "-P", str(program)],  # -P: no module of this folder hides one of the same name
            env={**os.environ, "MUJOCO_GL": backend},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return BackendProbe(backend, f"the driver hangs (given up after {timeout:g} s)")
    try:
        outcome = json.loads(run.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return BackendProbe(backend, _how_it_ended(run))
    return BackendProbe(backend, outcome.pop("failure", None), **outcome)


def choose_backend() -> str:
    """Return the GL backend that draws MuJoCo's pictures here: the one MUJOCO_GL names, or else EGL, or else OSMesa.

    It has drawn a picture in a process of its own. The choice is written to the environment (MUJOCO_GL, for EGL also
    MUJOCO_EGL_DEVICE_ID), where this process and the workers that it starts find it and probe no more.

    Raises:
        ValueError: MUJOCO_GL names no backend, or forbids rendering.
        ImportError: no backend draws; the message says why and which packages are missing.
    """
    wanted = os.environ.get("MUJOCO_GL", "").strip().lower()
    defaults = default_backends()
    if wanted in _OFF:
        raise ValueError(f"MUJOCO_GL={wanted} forbids pictures: unset it, or set one of {', '.join(defaults)}")
    if wanted not in (*_UNDECIDED, *defaults, "glfw", "glx"):
        raise ValueError(f"MUJOCO_GL={wanted} is no GL backend: unset it, or set one of {', '.join(defaults)}")
    if wanted and wanted == os.environ.get(_FOUND_TO_WORK):
        return wanted
    if importlib.util.find_spec("mujoco") is None:
        raise ImportError("pictures need MuJoCo: install it with `pip install -e .[robosuite]`")
    probes = []  # in order, up to the first that draws
    for backend in defaults if wanted in _UNDECIDED else (wanted,):
        probes.append(probe(backend))
        if probes[-1].failure is None:
            os.environ["MUJOCO_GL"] = os.environ[_FOUND_TO_WORK] = backend
            if probes[-1].device is not None:
                os.environ["MUJOCO_EGL_DEVICE_ID"] = str(probes[-1].device)
            return backend
    reasons = "; ".join(f"{failed.backend}: {failed.failure} ({failed.remedy})" for failed in probes)
    if wanted in _UNDECIDED:
        raise ImportError(f"no GL backend draws pictures here: {reasons}")
    raise ImportError(f"MUJOCO_GL={wanted} draws no pictures here: mend it, or unset MUJOCO_GL to try all: {reasons}")


def prepare_rendering() -> str:
    """Make MuJoCo and robosuite, imported already, draw with `choose_backend()`, and return it.

    Raises:
        ValueError: MUJOCO_GL names no backend, or forbids rendering.
        ImportError: no backend draws.
    """
    backend = choose_backend()
    _tell_mujoco(backend)
    _tell_robosuite(backend)
    return backend


@contextmanager
def importing_robosuite() -> Iterator[None]:
    """Import robosuite within: it, MuJoCo and OpenCV load no GL, print nothing and leave the environment as it was.

    Afterwards robosuite logs errors only: its warnings of joints at their limits would come with every step.
    """
    if "robosuite" in sys.modules:  # and set up as its importer likes it
        yield
        return
    kept = {name: os.environ.pop(name, None) for name in ("MUJOCO_GL", "MUJOCO_EGL_DEVICE_ID")}
    os.environ["MUJOCO_GL"] = "disabled"  # for MuJoCo; robosuite takes no notice and sets "egl"
    logger = logging.getLogger("robosuite_logs")
    logger.addFilter(_nothing)  # the level is reset by the import
    deferred = [_defer(name) for name in _UNUSED_WITHOUT_WINDOW if name not in sys.modules]
    try:
        yield
    finally:
        for module in deferred:
            _let_go(module)
        logger.removeFilter(_nothing)
        logger.setLevel(logging.ERROR)
        del os.environ["MUJOCO_GL"]
        os.environ.update({name: value for name, value in kept.items() if value is not None})
    if kept["MUJOCO_GL"]:
        _tell_robosuite(kept["MUJOCO_GL"])


def _tell_mujoco(backend: str) -> None:
    contexts: Any = sys.modules.get("mujoco.rendering.classic.gl_context")
    if contexts is not None and backend != contexts._MUJOCO_GL:
        importlib.reload(contexts)  # reads MUJOCO_GL and loads GL; `mujoco.Renderer` takes its context from here


def _tell_robosuite(backend: str) -> None:
    bindings: Any = sys.modules.get("robosuite.utils.binding_utils")
    if bindings is not None:
        bindings._MUJOCO_GL = backend.strip().lower()  # looked at whenever a rendering context is made


def _defer(name: str) -> ModuleType:
    """Put a module in the place of another that imports it when something is asked of it.

    (`importlib.util.LazyLoader` would not do: a second `import` of the module loads it.)
    """
    placeholder = ModuleType(name)
    placeholder.__getattr__ = lambda attribute: getattr(importlib.import_module(name), attribute)
    sys.modules[name] = placeholder
    return placeholder


def _let_go(placeholder: ModuleType) -> None:
    """Let later imports find the real module; whoever holds the placeholder keeps it."""
    name = placeholder.__name__
    if sys.modules.get(name) is placeholder:
        del sys.modules[name]
        package, _, module = name.rpartition(".")
        if package in sys.modules:
            setattr(sys.modules[package], module, placeholder)  # until the real one is imported


def _nothing(_: logging.LogRecord) -> bool:
    return False


def _how_it_ended(run: subprocess.CompletedProcess[str]) -> str:
    if run.returncode < 0:
        return f"the driver crashes ({signal.Signals(-run.returncode).name})"
    last_words = run.stderr.strip().splitlines() or [f"exit code {run.returncode}"]
    return last_words[-1]
