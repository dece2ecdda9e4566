"""From an observation to a chunk of joint increments, through the three engines."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle, EmbodimentSpec, SlotScaling
from edge.engines import Engine
from edge.policy.instruction import Instruction

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PolicyInput:
    """What one chunk is computed from; n = history length, J = joints of the arm.

    frames       uint8 (cameras, height, width, 3)
    states_rad   (n, J), measured positions at the last n steps; rows where `mask` is False do not count
    actions_rad  (n, J), increments commanded at those steps
    mask         bool (n,)
    prefix_rad   (d, J), increments already committed from the observed step on
    seed         draws the noise; the same input and seed give the same chunk
    step         number of the observed step on control's grid, from 0 at rest
    """

    frames: NDArray[np.uint8]
    states_rad: FloatArray
    actions_rad: FloatArray
    mask: NDArray[np.bool_]
    prefix_rad: FloatArray
    seed: tuple[int, int]
    step: int = 0


@dataclass(frozen=True)
class PolicyOutput:
    """Increments of the commanded joint positions, (horizon, J) rad per step, and the time each engine took."""

    increments_rad: FloatArray
    history_ns: int
    backbone_ns: int
    decoder_ns: int


class ChunkPolicy:
    """Holds the engines and fills their inputs; one per process that infers."""

    def __init__(
        self,
        bundle: Bundle,
        embodiment: EmbodimentSpec,
        engines: dict[str, Engine],
        instruction: Instruction,
        clock_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.shape = bundle.manifest.policy
        self.embodiment = embodiment
        self._history, self._backbone, self._decoder = (
            engines[name] for name in ("history_encoder", "backbone", "action_decoder")
        )
        self._clock_ns = clock_ns
        self._history.inputs["embodiment"][:] = embodiment.index
        self._backbone.inputs["embodiment"][:] = embodiment.index
        self._backbone.inputs["tokens"][0] = instruction.tokens
        self._backbone.inputs["token_mask"][0] = instruction.mask
        self._decoder.inputs["used"][:] = 0
        self._decoder.inputs["used"][0, list(embodiment.actions.slots)] = 1

    @property
    def joints(self) -> int:
        return len(self.embodiment.joints)

    def describe(self) -> tuple[str, ...]:
        """What runs the history encoder, the backbone and the decoder."""
        return tuple(engine.describe() for engine in (self._history, self._backbone, self._decoder))

    def infer(self, observed: PolicyInput) -> PolicyOutput:
        """Computes one chunk. The caller checks that it is finite."""
        started_ns = self._clock_ns()
        self._encode_history(observed)
        encoded_ns = self._clock_ns()
        self._backbone.inputs["frames"][0] = observed.frames
        self._backbone.run()
        seen_ns = self._clock_ns()
        self._decode(observed)
        decoded_ns = self._clock_ns()
        actions = self.embodiment.actions
        chunk = self._decoder.outputs["chunk"][0][:, list(actions.slots)].astype(np.float64)
        return PolicyOutput(
            increments_rad=chunk * np.array(actions.scale) + np.array(actions.offset),
            history_ns=encoded_ns - started_ns,
            backbone_ns=seen_ns - encoded_ns,
            decoder_ns=decoded_ns - seen_ns,
        )

    def _encode_history(self, observed: PolicyInput) -> None:
        inputs, mask = self._history.inputs, observed.mask
        _scatter(inputs["states"][0], observed.states_rad, mask, self.embodiment.states)
        _scatter(inputs["actions"][0], observed.actions_rad, mask, self.embodiment.actions)
        inputs["mask"][0] = mask
        self._history.run()
        self._backbone.inputs["history"][:] = self._history.outputs["z_history"]
        self._backbone.inputs["has_history"][:] = mask.any()

    def _decode(self, observed: PolicyInput) -> None:
        inputs, committed = self._decoder.inputs, len(observed.prefix_rad)
        slots = list(self.embodiment.actions.slots)
        noise = np.random.default_rng(observed.seed).standard_normal((self.shape.horizon, len(slots)), dtype=np.float32)
        inputs["noise"][:] = 0
        inputs["noise"][0][:, slots] = self.shape.noise_scale * noise
        inputs["z"][:] = self._backbone.outputs["z"]
        inputs["committed"][:] = np.arange(self.shape.horizon) < committed
        _scatter(
            inputs["prefix"][0][:committed], observed.prefix_rad, np.ones(committed, np.bool_), self.embodiment.actions
        )
        self._decoder.run()


def _scatter(into: NDArray[Any], values: FloatArray, mask: NDArray[np.bool_], scaling: SlotScaling) -> None:
    """Normalises rows into their slots; rows that do not count, and slots that are not used, are zero."""
    into[:] = 0
    normalised = (values - np.array(scaling.offset)) / np.array(scaling.scale)
    into[:, list(scaling.slots)] = np.where(mask[:, None], normalised, 0.0)
