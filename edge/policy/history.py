"""What the arm has done: the last state-action pairs, one per policy step, and measured positions over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from edge.plan.timeline import Timeline
from edge.plan.trajectory import from_micro
from firmware_bridge.codes import MICRO

FloatArray = NDArray[np.float64]
TRACK_KEPT = 64


class HistoryRing:
    """Measured positions and commanded increments of the last `length` steps; newest last when read."""

    def __init__(self, length: int, joints: int) -> None:
        self._states = np.zeros((length, joints))
        self._actions = np.zeros((length, joints))
        self._length = length
        self._count = 0

    def __len__(self) -> int:
        return min(self._count, self._length)

    def push(self, state_rad: FloatArray, action_rad: FloatArray) -> None:
        """Appends one pair, each (joints,); the oldest falls out."""
        row = self._count % self._length
        self._states[row] = state_rad
        self._actions[row] = action_rad
        self._count += 1

    def rest(self, state_rad: FloatArray) -> None:
        """Fills the ring as if the arm had stood still at this pose; every run begins so."""
        for _ in range(self._length):
            self.push(state_rad, np.zeros_like(state_rad))

    def read(self, states_rad: FloatArray, actions_rad: FloatArray, mask: NDArray[np.bool_]) -> None:
        """Fills (length, joints) arrays in time order, right-aligned; `mask` says which rows hold a pair."""
        held = len(self)
        mask[:] = np.arange(self._length) >= self._length - held
        rows = np.arange(self._count - held, self._count) % self._length
        states_rad[self._length - held :] = self._states[rows]
        actions_rad[self._length - held :] = self._actions[rows]
        states_rad[: self._length - held] = 0
        actions_rad[: self._length - held] = 0


class MeasuredTrack:
    """The newest measured positions by device time."""

    def __init__(self, joints: int) -> None:
        self._device_us = np.zeros(TRACK_KEPT, dtype=np.int64)
        self._measured = np.zeros((TRACK_KEPT, joints))
        self._count = 0

    def add(self, device_us: int, measured_urad: Sequence[int]) -> None:
        """Takes one report of the device."""
        row = self._count % TRACK_KEPT
        self._device_us[row] = device_us
        self._measured[row] = measured_urad
        self._count += 1

    def at(self, device_us: int) -> FloatArray:
        """Positions at a device time, between the two nearest reports, rad (J,)."""
        held = min(self._count, TRACK_KEPT)
        rows = np.arange(self._count - held, self._count) % TRACK_KEPT
        times, positions = self._device_us[rows], self._measured[rows] * MICRO
        return np.array([np.interp(device_us, times, column) for column in positions.T])


class StepHistory:
    """The history of a run: one pair per policy step, from the device's reports and the committed trajectory."""

    def __init__(self, length: int, joints: int) -> None:
        self._shape = (length, joints)
        self._ring = HistoryRing(length, joints)
        self._track = MeasuredTrack(joints)
        self._steps = 0

    def observe(self, device_us: int, measured_urad: Sequence[int]) -> None:
        """Takes one report of the device."""
        self._track.add(device_us, measured_urad)

    def rest(self, measured_urad: Sequence[int]) -> None:
        """As if the arm had stood still in this pose; the next step is the first."""
        self._ring.rest(from_micro(measured_urad))
        self._steps = 0

    def advance(self, timeline: Timeline, now_us: float) -> None:
        """Takes the steps that have ended."""
        if not timeline.begun:
            return
        for step in range(self._steps, timeline.step_at(now_us)):
            self._ring.push(self._track.at(timeline.due_us(step)), timeline.increments_rad(step, 1)[0])
            self._steps = step + 1

    def read(self) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
        """Measured positions and commanded increments, each (length, J), in time order, and which rows hold a pair."""
        states, actions, mask = np.zeros(self._shape), np.zeros(self._shape), np.zeros(self._shape[0], dtype=np.bool_)
        self._ring.read(states, actions, mask)
        return states, actions, mask
