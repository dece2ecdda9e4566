"""What the inference process needs of a policy, and how one is opened by the name that a bundle gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile, load_arm
from edge.bundle import ACTION_PRIOR, Bundle, EmbodimentSpec, PolicyShape
from edge.engines import DEFAULT_ENGINE
from edge.errors import InputError
from edge.registry import Registry

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


class Policy(Protocol):
    """What computes chunks: a bundle's engines, or one's own function."""

    shape: PolicyShape

    @property
    def joints(self) -> int: ...

    def infer(self, observed: PolicyInput) -> PolicyOutput:
        """Computes one chunk. The caller checks that it is finite."""


class BundlePolicy(Policy, Protocol):
    """A policy that a bundle names."""

    embodiment: EmbodimentSpec

    def describe(self) -> tuple[str, ...]:
        """What runs each of its parts."""


@dataclass(frozen=True)
class PolicyDriver:
    """Base of the drivers: a policy family on the robot. `engine` is one of `edge.engines.engine_choices`."""

    task: str
    threads: int = 1
    engine: str = DEFAULT_ENGINE

    def check(self, bundle: Bundle, arm: ArmProfile) -> None:
        """Raises `VlaEdgeError` for a task, an arm or an engine that the bundle does not suit; opens nothing."""

    def open(self, bundle: Bundle, arm: ArmProfile) -> BundlePolicy:
        """The policy, ready to infer. Raises `VlaEdgeError`."""
        raise NotImplementedError


POLICIES: Registry[PolicyDriver] = Registry(
    "vla_edge.policies", "policy", {ACTION_PRIOR: "edge.policy.chunk_policy:ActionPrior"}, InputError
)


def check_policy(bundle: Bundle, arm: ArmProfile, task: str, threads: int, engine: str) -> None:
    """What can be known to be wrong before anything is opened. Raises `VlaEdgeError`."""
    POLICIES.load(bundle.manifest.family)(task, threads, engine).check(bundle, arm)


def open_policy(bundle: Bundle, arm: str, task: str, threads: int, engine: str = DEFAULT_ENGINE) -> BundlePolicy:
    """Opens the policy of a bundle for the arm with that profile. Raises `VlaEdgeError`."""
    return POLICIES.load(bundle.manifest.family)(task, threads, engine).open(bundle, load_arm(arm))
