"""A bundle as a server of policies sees it: observations by name in, absolute goals in the policy's units out.

The server keeps no history: each observation stands for itself. What a policy of ours uses beside it may come along:
the history, where the arm is commanded to be, and what is committed already. Without them it computes without.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile
from edge.bundle import Bundle, CameraSpec
from edge.engines import check_engines, open_engines
from edge.errors import InputError
from edge.plan.checks import check_finite
from edge.policy.axes import Units
from edge.policy.base import FloatArray, PolicyInput
from edge.policy.graph_policy import GraphPolicy
from edge.policy.prompt import Prompter
from edge.policy.remote import (
    ACTIONS,
    COMMANDED,
    HISTORY_MASK,
    MASK,
    OURS,
    PREFIX,
    STATES,
    WEIGHTS,
    spec_of,
)

MOST_TASKS = 32
"""Tasks whose prompts are kept."""


class ServedBundle:
    """One policy for any number of clients, one observation after the other. Raises `VlaEdgeError`.

    task  for observations without a "prompt"; "" where every client has to send one
    """

    def __init__(self, bundle: Bundle, arm: ArmProfile, task: str, engine: str, threads: int, seed: int = 0) -> None:
        check_engines(bundle, engine, threads)
        spec, self._bundle, self._task = bundle.arm(arm.embodiment, arm.joints), bundle, task
        self._prompters: dict[str, Prompter] = {}
        engines = open_engines(bundle, engine, threads)
        self.policy = GraphPolicy(bundle, spec, arm, engines, self._prompter(task) if task else None)
        shape, kept = self.policy.shape, bundle.manifest.policy.prefix
        self.spec = spec_of(self.policy, shape.horizon, kept)
        self._state = Units.of(spec.axes, tuple(axis.state.unit for axis in spec.axes), arm)
        self._action = Units.of(spec.axes, tuple(axis.action.unit for axis in spec.axes), arm)
        self._seed, self._chunks, self._joints = seed, 0, len(spec.axes)

    def metadata(self) -> dict[str, Any]:
        """What it is: for people, and under `vla_edge` for `edge-run --policy`, as JSON."""
        manifest = self._bundle.manifest
        return {
            OURS: json.dumps(asdict(self.spec)),
            "family": manifest.policy.family,
            "checkpoint_sha256": manifest.checkpoint_sha256,
            "arm": self.policy.arm.name,
        }

    def answer(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        """Goals (horizon, J) under "actions", the first due one step after the observation. Raises `InputError`."""
        self._set_task(observation.get(self.spec.prompt_key, self._task))
        several = self.spec.observations
        measured = self._state.to_arm(self._numbers(observation, self.spec.state_key, (several, self._joints)))
        commanded = self._commanded(observation, measured)
        states, actions, mask = self._history(observation)
        self._chunks += 1
        output = self.policy.infer(
            PolicyInput(
                [self._frame(observation, camera) for camera in self.policy.cameras],
                states,
                actions,
                mask,
                np.diff(commanded, axis=0),
                (self._seed, self._chunks),
                measured_rad=measured,
                commanded_rad=commanded,
            )
        )
        if (refusal := check_finite(output.rows_rad)) is not None:
            raise InputError(f"the policy's chunk is refused, {refusal}")
        goals = output.goals_rad
        if not len(goals):
            goals = commanded[0] + np.cumsum(output.increments_rad, axis=0)
        return {"actions": self._action.from_arm(goals)}

    def _set_task(self, task: Any) -> None:
        if self._bundle.manifest.text is None:
            return
        if not isinstance(task, str) or not task:
            raise InputError(f"this policy follows an instruction; send one under '{self.spec.prompt_key}'")
        self.policy.set_prompter(self._prompter(task))

    def _prompter(self, task: str) -> Prompter | None:
        text = self._bundle.manifest.text
        if text is None:
            return None
        if task not in self._prompters:
            if len(self._prompters) >= MOST_TASKS:
                self._prompters.clear()
            self._prompters[task] = Prompter(text, self._bundle.file(text.tokenizer), task)
        return self._prompters[task]

    def _commanded(self, observation: Mapping[str, Any], measured: FloatArray) -> FloatArray:
        """Where the arm is commanded to be: at the observed step, and at the ends of the steps that are committed."""
        now = measured[-1:]
        if COMMANDED in observation:
            now = self._state.to_arm(self._numbers(observation, COMMANDED, (1, self._joints)))
        if PREFIX not in observation or self.spec.prefix == "none":
            return now
        goals = self._action.to_arm(self._numbers(observation, PREFIX, (self.spec.horizon, self._joints)))
        mask = observation.get(MASK, observation.get(WEIGHTS))
        if not isinstance(mask, np.ndarray) or mask.shape != (self.spec.horizon,):
            raise InputError(f"'{PREFIX}' needs '{MASK}' ({self.spec.horizon},), which says how many of its rows count")
        return np.concatenate((now, goals[: int(np.count_nonzero(mask))]))

    def _history(self, observation: Mapping[str, Any]) -> tuple[FloatArray, FloatArray, NDArray[np.bool_]]:
        """States and increments (history, J) of the steps before, and which of them count."""
        rows = self.policy.shape.history
        mask = observation.get(HISTORY_MASK)
        if not rows or mask is None:
            nothing = np.zeros((rows, self._joints))
            return nothing, nothing, np.zeros(rows, np.bool_)
        if not isinstance(mask, np.ndarray) or mask.shape != (rows,) or mask.dtype != np.bool_:
            raise InputError(f"'{HISTORY_MASK}' is {_shown(mask)}; send bool ({rows},)")
        states, actions = (self._numbers(observation, key, (rows, self._joints)) for key in (STATES, ACTIONS))
        return self._state.to_arm(states), self._action.difference_to_arm(actions), mask

    def _numbers(self, observation: Mapping[str, Any], key: str, shape: tuple[int, int]) -> FloatArray:
        values = observation.get(key)
        single = shape[1:] if shape[0] == 1 else shape
        if not isinstance(values, np.ndarray) or values.shape not in (shape, single) or values.dtype.kind not in "fiu":
            raise InputError(f"'{key}' is {_shown(values)}; send {single} numbers: {self._meaning(key)}")
        numbers: FloatArray = values.astype(np.float64).reshape(shape)
        if not np.isfinite(numbers).all():
            raise InputError(f"'{key}' is not finite")
        return numbers

    def _meaning(self, key: str) -> str:
        axes = self.spec.axes
        return ", ".join(f"{axis.joint} in {axis.action if key == PREFIX else axis.state}" for axis in axes)[:160]

    def _frame(self, observation: Mapping[str, Any], camera: CameraSpec) -> NDArray[np.uint8]:
        key, size = self.spec.cameras[camera.name].key, (*camera.frame_px, 3)
        wanted = (self.spec.observations, *size) if self.spec.observations > 1 else size
        frame = observation.get(key)
        if isinstance(frame, np.ndarray) and frame.shape == (3, *camera.frame_px) and len(wanted) == 3:
            frame = frame.transpose(1, 2, 0)  # as openpi's clients for ALOHA send it
        if not isinstance(frame, np.ndarray) or frame.shape != wanted or frame.dtype != np.uint8:
            raise InputError(f"'{key}' is {_shown(frame)}; send uint8 {wanted}")
        return frame


def _shown(value: Any) -> str:
    if value is None:
        return "missing"
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__
