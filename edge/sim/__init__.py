"""Simulated arms, their scenes and cameras in MuJoCo, the lockstep runner, the fault table. Needs the ``sim`` extra."""

import ctypes
import os


def _renderer() -> str:
    """What draws without a display; without its library MuJoCo would not load at all, physics included."""
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        return "disable"
    return "egl"


# Both are read by MuJoCo and Mesa as they load.
if os.environ.get("MUJOCO_GL", "egl") == "egl":
    os.environ["MUJOCO_GL"] = _renderer()
os.environ.setdefault("MESA_SHADER_CACHE_DISABLE", "true")  # a cache in the home, which nobody asked for
