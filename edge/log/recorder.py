"""Samples of a run, in arrays allocated before the loop starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.plan.trajectory import FloatArray, from_micro


@dataclass(frozen=True)
class Samples:
    """The run over time. device_us (n,), commanded and measured rad (n, J), buffered_ms (n,), device state (n,)."""

    device_us: NDArray[np.int64]
    commanded_rad: FloatArray
    measured_rad: FloatArray
    buffered_ms: NDArray[np.int64]
    state: NDArray[np.int64]
    splices_us: NDArray[np.int64]


class Recorder:
    """Takes one sample per state report and one mark per splice; past its capacity it keeps the newest."""

    def __init__(self, capacity: int, joints: int) -> None:
        self._capacity = capacity
        self._count = 0
        self._device_us = np.zeros(capacity, dtype=np.int64)
        self._commanded = np.zeros((capacity, joints), dtype=np.int64)
        self._measured = np.zeros((capacity, joints), dtype=np.int64)
        self._buffered = np.zeros(capacity, dtype=np.int64)
        self._state = np.zeros(capacity, dtype=np.int64)
        self._splices = np.zeros(capacity, dtype=np.int64)
        self._splice_count = 0

    def sample(
        self, device_us: int, commanded_urad: Sequence[int], measured_urad: Sequence[int], buffered_ms: int, state: int
    ) -> None:
        row = self._count % self._capacity
        self._device_us[row] = device_us
        self._commanded[row] = commanded_urad
        self._measured[row] = measured_urad
        self._buffered[row] = buffered_ms
        self._state[row] = state
        self._count += 1

    def splice(self, device_us: int) -> None:
        self._splices[self._splice_count % self._capacity] = device_us
        self._splice_count += 1

    def begin_step(self, now_ns: int, loop_tick: int) -> None:
        """Control begins a step. Kept by the recorder of a log only."""

    def word(self, name: str, *arguments: float | str) -> None:
        """Somebody asks something of control from outside. Kept by the recorder of a log only."""

    def decide(self, decision: str, **details: float | str) -> None:
        """Control has decided something. Kept by the recorder of a log only; the counters hold the sums."""

    def samples(self) -> Samples:
        """Everything kept, in time order."""
        order = np.arange(max(0, self._count - self._capacity), self._count) % self._capacity
        marks = np.arange(max(0, self._splice_count - self._capacity), self._splice_count) % self._capacity
        return Samples(
            self._device_us[order],
            from_micro(self._commanded[order]),
            from_micro(self._measured[order]),
            self._buffered[order],
            self._state[order],
            self._splices[marks],
        )
