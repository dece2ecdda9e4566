"""Samples of a run, in arrays allocated before the loop starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.inference.layout import Layout
from edge.log.records import Sample
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
    first_us: int | None = None
    """Device time of the very first sample, kept or not."""

    @property
    def whole_run_us(self) -> NDArray[np.int64]:
        """Device time of the first sample and of those that were kept."""
        return self.device_us if self.first_us is None else np.insert(self.device_us, 0, self.first_us)


class Recorder:
    """Takes one sample per state report and one mark per splice; past its capacity it keeps the newest."""

    def __init__(self, capacity: int, joints: int) -> None:
        self._capacity = capacity
        self._count = 0
        self._rows = np.zeros(capacity, Layout(Sample, joints=joints).dtype)
        self._splices = np.zeros(capacity, dtype=np.int64)
        self._splice_count = 0
        self._first_us: int | None = None

    def sample(
        self, device_us: int, commanded_urad: Sequence[int], measured_urad: Sequence[int], buffered_ms: int, state: int
    ) -> None:
        values = (device_us, buffered_ms, state, len(commanded_urad), commanded_urad, measured_urad)
        if self._first_us is None:
            self._first_us = device_us
        self._rows[self._count % self._capacity] = values
        self._count += 1

    def splice(self, device_us: int) -> None:
        self._splices[self._splice_count % self._capacity] = device_us
        self._splice_count += 1

    def begin_step(self, now_ns: int, loop_tick: int) -> None:
        """Control begins a step. Kept by the recorder of a log only."""

    def call(self, name: str, *arguments: float | str) -> None:
        """A method of control was called from outside of its step. Kept by the recorder of a log only."""

    def decide(self, decision: str, **details: float | str) -> None:
        """Control has decided something. Kept by the recorder of a log only; the counters hold the sums."""

    def samples(self) -> Samples:
        """Everything kept, in time order."""
        order = np.arange(max(0, self._count - self._capacity), self._count) % self._capacity
        marks = np.arange(max(0, self._splice_count - self._capacity), self._splice_count) % self._capacity
        rows = self._rows[order]
        return Samples(
            rows["device_us"],
            from_micro(rows["commanded_urad"]),
            from_micro(rows["measured_urad"]),
            rows["buffered_ms"].astype(np.int64),
            rows["state"].astype(np.int64),
            self._splices[marks],
            self._first_us,
        )
