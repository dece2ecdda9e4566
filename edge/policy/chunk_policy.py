"""From an observation to a chunk of joint increments, through the three engines."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile
from edge.bundle import TOKENIZER, Bundle, EmbodimentSpec, SlotScaling
from edge.engines import Engine, check_engines, open_engines
from edge.policy.base import FloatArray, PolicyDriver, PolicyInput, PolicyOutput
from edge.policy.instruction import Instruction, tokenize


@dataclass(frozen=True)
class ActionPrior(PolicyDriver):
    """The project's own family: three engines and an instruction in tokens."""

    def check(self, bundle: Bundle, arm: ArmProfile) -> None:
        check_engines(bundle, self.engine, self.threads)
        bundle.embodiment(arm.embodiment, arm.dof)
        self._instruction(bundle)

    def open(self, bundle: Bundle, arm: ArmProfile) -> ChunkPolicy:
        engines = open_engines(bundle, self.engine, self.threads)
        instruction = self._instruction(bundle)
        return ChunkPolicy(bundle, bundle.embodiment(arm.embodiment, arm.dof), engines, instruction)

    def _instruction(self, bundle: Bundle) -> Instruction:
        return tokenize(self.task, bundle.file(TOKENIZER), bundle.manifest.policy.token_budget)


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
