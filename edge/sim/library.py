"""MuJoCo with this project's settings; every module of `edge` that needs it takes it from here.

MuJoCo writes its warnings and errors to MUJOCO_LOG.TXT in the current folder too, a file that nobody asked for; they
go to the terminal alone.
"""

from __future__ import annotations

import mujoco

__all__ = ["mujoco"]

_messages = mujoco.MjLogConfig.get()
_messages.logto_file = False
_messages.set()
