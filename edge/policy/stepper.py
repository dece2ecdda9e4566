"""A policy on one's own frames: one call per step, the history kept here, no arm and no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError
from edge.plan.checks import check_finite
from edge.policy.base import NO_ROWS, BundlePolicy, FloatArray, PolicyInput, PolicyOutput

Frames: TypeAlias = Sequence[NDArray[np.uint8]]


class PolicyStepper:
    """`infer` computes a chunk; `step` does it every `execute_steps` calls and returns the rows one by one.

    `execute_steps` is None for what the bundle says. The arm is taken to be where it was commanded to be.
    """

    def __init__(self, policy: BundlePolicy, seed: int = 0, execute_steps: int | None = None) -> None:
        shape = policy.shape
        execute = policy.execute_steps if execute_steps is None else execute_steps
        if not 1 <= execute <= shape.horizon:
            raise InputError(f"execute_steps {execute}: a chunk has {shape.horizon} steps")
        self.policy, self.shape, self.step_s = policy, shape, policy.arm.step_s
        self.cameras = policy.cameras
        self._sizes = [(*camera.frame_px, 3) for camera in policy.cameras]
        self._joints = policy.joints
        self._seed, self._execute = seed, execute
        self.reset()

    def reset(self) -> None:
        """Begins again, at rest."""
        seen = self.policy.observations
        self._pairs: deque[tuple[FloatArray, FloatArray]] = deque(maxlen=self.shape.history)
        self._seen: deque[tuple[Frames, FloatArray]] = deque(maxlen=seen)
        self._steps = 0
        self._chunk = np.zeros((0, self._joints))

    def infer(self, observed: PolicyInput) -> PolicyOutput:
        """One chunk of an observation that the caller puts together."""
        return self.policy.infer(observed)

    def step(self, frames: Frames, q_rad: FloatArray) -> FloatArray:
        """The increment (J,) of the commanded positions for the step that begins now, rad.

        Of a policy that makes goals it is the goal (J,) for the end of that step.

        frames uint8 (height, width, 3) of each of `cameras`, in their order; q_rad (J,) measured now. Raises
        `InputError`.
        """
        q = np.asarray(q_rad, dtype=np.float64)
        if [np.shape(frame) for frame in frames] != self._sizes or any(frame.dtype != np.uint8 for frame in frames):
            raise InputError(f"frames {[np.shape(frame) for frame in frames]}: this policy sees uint8 {self._sizes}")
        if q.shape != (self._joints,) or not np.isfinite(q).all():
            raise InputError(f"q_rad {q}: this policy moves {self._joints} joints, all of them finite")
        if not self._steps:
            self._pairs.extend([(q, np.zeros_like(q))] * self.shape.history)
            self._seen.extend([(frames, q)] * self.policy.observations)
        self._seen.append((frames, q))
        if self._steps % self._execute == 0:
            self._chunk = self._computed(q)
        row: FloatArray = self._chunk[self._steps % self._execute]
        self._pairs.append((q, row))
        self._steps += 1
        return row

    def _computed(self, q: FloatArray) -> FloatArray:
        states, actions = (np.array(rows) for rows in zip(*self._pairs)) if self._pairs else (NO_ROWS, NO_ROWS)
        seen, measured = zip(*self._seen)
        frames = [np.stack(row) for row in zip(*seen)] if self.policy.observations > 1 else list(seen[-1])
        observed = PolicyInput(
            frames,
            states,
            actions,
            mask=np.ones(self.shape.history, dtype=np.bool_),
            prefix_rad=np.zeros((0, self._joints)),
            seed=(self._seed, self._steps),
            step=self._steps,
            measured_rad=np.array(measured),
            commanded_rad=q[None],
        )
        chunk = self.policy.infer(observed).rows_rad
        if (refusal := check_finite(chunk)) is not None:
            raise InputError(f"the policy's chunk is refused, {refusal}; check the checkpoint and the frames")
        return chunk
