"""MuJoCo with this project's settings; every module of `edge` that needs it takes it from here.

MuJoCo writes its warnings and errors to MUJOCO_LOG.TXT in the current folder too, a file that nobody asked for; they
go to the terminal alone.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from edge.errors import InputError
from firmware_bridge.reading import one_line

try:
    import mujoco
except (AttributeError, OSError, RuntimeError) as error:  # of PyOpenGL, without the library; of MuJoCo, of the name
    raise InputError(
        f"MuJoCo does not load with MUJOCO_GL={os.environ['MUJOCO_GL']} ({one_line(str(error), 100)}); unset it, or "
        "install that renderer"
    ) from None

__all__ = ["mujoco", "save_model"]

_messages = mujoco.MjLogConfig.get()
_messages.logto_file = False
_messages.set()


def save_model(model: mujoco.MjModel, path: Path) -> None:
    """Writes a compiled model (.mjb). Raises `InputError`; MuJoCo would warn and leave a file that is cut off."""
    compiled = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, compiled)
    try:
        path.write_bytes(compiled.data)
    except OSError as error:
        raise InputError(
            f"the simulated scene cannot be written to {path} ({error.strerror}); make room there, name another "
            "temporary folder with TMPDIR, or raise the limits of this shell (ulimit -f)"
        ) from None
