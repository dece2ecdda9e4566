"""One's own set-points as a policy: read ahead in a thread, handed out a chunk at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np

from edge.plan.trajectory import FloatArray
from edge.policy.function_policy import Observation

LOOK_S = 0.1


class SetPoints:
    """A policy function whose goals are the set-points (J,), one for the end of each step.

    A request waits until its chunk is whole, or no more set-points come. What the iterable raises is raised there.
    """

    def __init__(self, points: Iterable[Any], joints: int, horizon: int) -> None:
        self._joints, self._horizon = joints, horizon
        self._ahead: queue.Queue[FloatArray | None] = queue.Queue(maxsize=2 * horizon)
        self._rows: list[FloatArray] = []
        self._first, self._ended, self._closed = 0, False, False
        self._error: Exception | None = None
        threading.Thread(target=self._read, args=(points,), name="set-points", daemon=True).start()

    def ready(self) -> bool:
        """Whether a first chunk can be made without waiting."""
        return self._ended or self._ahead.qsize() >= self._horizon

    def __call__(self, observation: Observation) -> FloatArray | None:
        """Goals (n, J) from the observed step on; None when all of them are committed."""
        if observation.step == 0:  # from rest, with the set-point that is next
            self._first = -len(self._rows)
        passed = observation.step - self._first
        while len(self._rows) < passed + self._horizon and (point := self._next()) is not None:
            self._rows.append(point)
        del self._rows[:passed]
        self._first = observation.step
        if self._error is not None:
            raise self._error
        return np.array(self._rows) if len(self._rows) > len(observation.committed_rad) else None

    def _next(self) -> FloatArray | None:
        while not (self._ended and self._ahead.empty()):
            try:
                return self._ahead.get(timeout=LOOK_S)
            except queue.Empty:
                if self._closed:
                    break
        return None

    def _read(self, points: Iterable[Any]) -> None:
        try:
            for point in points:
                row = np.array(point, dtype=np.float64)
                if row.shape != (self._joints,):
                    raise ValueError(f"a set-point is {row.shape}; give ({self._joints},), in rad")
                if not self._put(row):
                    return
        except Exception as error:  # of somebody else's code: the arm stops, whatever it is
            self._error = error
        finally:
            self._ended = True

    def _put(self, row: FloatArray) -> bool:
        """Waits for room; False when nobody takes set-points any more."""
        while not self._closed:
            try:
                self._ahead.put(row, timeout=LOOK_S)
                return True
            except queue.Full:
                continue
        return False

    def close(self) -> None:
        """No more set-points are taken; the reading thread ends at the next one."""
        self._closed = True
