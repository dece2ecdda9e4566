"""Simulated arms, their scenes and cameras in MuJoCo, the lockstep runner, the fault table. Needs the ``sim`` extra."""

import os

os.environ.setdefault("MUJOCO_GL", "egl")  # read by mujoco at import; a robot or a server has no display
os.environ.setdefault("MESA_SHADER_CACHE_DISABLE", "true")  # a cache in the home, which nobody asked for
