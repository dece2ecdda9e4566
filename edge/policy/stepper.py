"""A policy on one's own frames: one call per step, the history kept here, no arm and no clock."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError
from edge.plan.checks import check_finite
from edge.policy.base import BundlePolicy, FloatArray, PolicyInput, PolicyOutput


class PolicyStepper:
    """`infer` computes a chunk; `step` does it every `execute_steps` calls and returns the rows one by one."""

    def __init__(self, policy: BundlePolicy, seed: int = 0, execute_steps: int = 5) -> None:
        shape = policy.shape
        if not 1 <= execute_steps <= shape.horizon:
            raise InputError(f"execute_steps {execute_steps}: a chunk has {shape.horizon} steps")
        self.policy, self.shape, self.step_s = policy, shape, policy.embodiment.step_s
        self._frames = (shape.cameras, *shape.frame_px, 3)
        self._joints = policy.joints
        self._seed, self._execute = seed, execute_steps
        self.reset()

    def reset(self) -> None:
        """Begins again, at rest."""
        self._pairs: deque[tuple[FloatArray, FloatArray]] = deque(maxlen=self.shape.history)
        self._steps = 0
        self._chunk = np.zeros((0, self._joints))

    def infer(self, observed: PolicyInput) -> PolicyOutput:
        """One chunk of an observation that the caller puts together."""
        return self.policy.infer(observed)

    def step(self, frames: NDArray[np.uint8], q_rad: FloatArray) -> FloatArray:
        """The increment (J,) of the commanded positions for the step that begins now, rad.

        frames uint8 (cameras, height, width, 3) as `shape` says; q_rad (J,) measured now. Raises `InputError`.
        """
        q = np.asarray(q_rad, dtype=np.float64)
        if np.shape(frames) != self._frames or np.asarray(frames).dtype != np.uint8:
            raise InputError(f"frames {np.shape(frames)}: this policy sees uint8 {self._frames}")
        if q.shape != (self._joints,) or not np.isfinite(q).all():
            raise InputError(f"q_rad {q}: this policy moves {self._joints} joints, all of them finite")
        if not self._steps:
            self._pairs.extend([(q, np.zeros_like(q))] * self.shape.history)
        if self._steps % self._execute == 0:
            self._chunk = self._computed(frames)
        increment: FloatArray = self._chunk[self._steps % self._execute]
        self._pairs.append((q, increment))
        self._steps += 1
        return increment

    def _computed(self, frames: NDArray[np.uint8]) -> FloatArray:
        states, actions = (np.array(rows) for rows in zip(*self._pairs))
        prefix, mask = np.zeros((0, self._joints)), np.ones(self.shape.history, dtype=np.bool_)
        seed = (self._seed, self._steps)
        chunk = self.policy.infer(PolicyInput(frames, states, actions, mask, prefix, seed, self._steps)).increments_rad
        if (refusal := check_finite(chunk)) is not None:
            raise InputError(f"the policy's chunk is refused, {refusal}; check the checkpoint and the frames")
        return chunk
