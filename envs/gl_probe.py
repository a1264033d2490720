"""Draw one picture with the GL backend that MUJOCO_GL names: a program of its own, because drivers crash and hang.

The last line of its output is JSON: `{"renderer": ..., "device": ...}`, the driver's name for what draws and the EGL
device or null, or `{"failure": ...}`.
"""

import ctypes
import json
import os
import textwrap

_LIBRARIES = {"egl": ("libEGL.so.1",), "osmesa": ("libOSMesa.so.8", "libOSMesa.so.6", "libOSMesa.so")}  # any of them
_SCENE = '<mujoco><worldbody><geom type="box" size=".5 .5 .5" rgba="1 0 0 1"/></worldbody></mujoco>'


def main() -> None:
    """Print the outcome."""
    backend = os.environ["MUJOCO_GL"]
    try:
        _check_library(backend)  # MuJoCo would fail with a riddle about None
        print(json.dumps(_draw_on_any_device() if backend == "egl" else {"renderer": _draw(), "device": None}))
    except Exception as error:
        print(json.dumps({"failure": _reason(error)}))


def _check_library(backend: str) -> None:
    if backend in ("glfw", "glx") and not os.environ.get("DISPLAY"):
        raise OSError("there is no display")
    names = _LIBRARIES.get(backend, ())
    for name in names:
        try:
            ctypes.CDLL(name)
            return
        except OSError as error:
            if "No such file" not in str(error):
                raise
    if names:
        raise OSError(f"there is no {names[0]}")


def _draw_on_any_device() -> dict[str, str | int]:
    """Try the EGL device that robosuite would take, then the others: in containers some are listed that are not ours.

    A device that the user chose stays the only one.
    """
    from mujoco import egl

    count = len(egl.EGL.eglQueryDevicesEXT())
    if "MUJOCO_EGL_DEVICE_ID" in os.environ:
        devices = [int(os.environ["MUJOCO_EGL_DEVICE_ID"])]
    else:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
        preferred = int(visible) if visible.isdigit() else 0
        devices = sorted(range(count), key=lambda device: device != preferred)
    failure: Exception = RuntimeError("EGL has no device")
    for device in devices:
        os.environ["MUJOCO_EGL_DEVICE_ID"] = str(device)
        egl.EGL_DISPLAY = None  # that of the device before
        try:
            return {"renderer": _draw(), "device": device}
        except Exception as error:
            failure = error
    raise failure


def _draw() -> str:
    """Draw a red box and return the driver's name for what drew it."""
    import mujoco

    model = mujoco.MjModel.from_xml_string(_SCENE)
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    renderer = mujoco.Renderer(model, 64, 64)
    renderer.update_scene(data)
    picture = renderer.render()  # (64, 64, 3) uint8
    from OpenGL import GL  # not before: it binds itself to the platform that MuJoCo sets

    name = GL.glGetString(GL.GL_RENDERER)
    if picture.min() == picture.max():
        raise RuntimeError(f"pictures of {name.decode()} are blank")
    return name.decode()


def _reason(error: Exception) -> str:
    words = textwrap.shorten(str(error), 160).rstrip(".")
    return words if isinstance(error, OSError | ImportError | RuntimeError) else f"{type(error).__name__}: {words}"


if __name__ == "__main__":
    main()
