"""The axes of an arm in a MuJoCo model: what its actuators move, in their order, as `ports/host/plant.c` sees them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edge.sim.library import mujoco

FloatArray = NDArray[np.float64]


class Axes:
    """Positions of the axes, as a linear function of the world's generalised positions.

    An axis is one joint, or a few that a fixed tendon couples: two fingers that share one width.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self._shares = np.zeros((model.nu, model.nq))
        for axis in range(model.nu):
            target = int(model.actuator_trnid[axis, 0])
            if model.actuator_trntype[axis] == mujoco.mjtTrn.mjTRN_JOINT:
                self._shares[axis, model.jnt_qposadr[target]] = 1.0
                continue
            first = int(model.tendon_adr[target])
            for wrap in range(first, first + int(model.tendon_num[target])):
                self._shares[axis, model.jnt_qposadr[model.wrap_objid[wrap]]] = model.wrap_prm[wrap]
        self._spread = self._shares / np.square(self._shares).sum(axis=1, keepdims=True)
        self._moved = np.flatnonzero(self._shares.any(axis=0))

    def read(self, position: FloatArray) -> FloatArray:
        """Positions of the axes, (axes,), from generalised positions (nq,)."""
        return np.asarray(self._shares @ position)

    def place(self, data: mujoco.MjData, axes: FloatArray) -> None:
        """Puts the arm there, its servos at rest; the rest of the world stays."""
        data.qpos[self._moved] = (axes @ self._spread)[self._moved]
        data.ctrl[:] = axes
