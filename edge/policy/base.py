"""What the inference process needs of a policy, and how one is opened by the name that a bundle gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile, load_arm
from edge.bundle import ArmSpec, Bundle, CameraSpec, ChunkShape
from edge.engines import DEFAULT_ENGINE
from edge.errors import InputError
from edge.registry import Registry

FloatArray = NDArray[np.float64]
NO_ROWS: FloatArray = np.zeros((0, 0))
GRAPH = "graph"
"""The driver of every bundle whose family has none of its own."""


@dataclass(frozen=True)
class PolicyInput:
    """What one chunk is computed from; n = history length, J = joints of the arm.

    frames         of each camera uint8 (height, width, 3), of several observations (observations, height, width, 3)
    states_rad     (n, J), measured positions at the last n steps; rows where `mask` is False do not count
    actions_rad    (n, J), increments commanded at those steps
    mask           bool (n,)
    prefix_rad     (d, J), increments already committed from the observed step on
    seed           draws the noise; the same input and seed give the same chunk
    step           number of the observed step on control's grid, from 0 at rest
    measured_rad   (observations, J), measured positions now and at the steps before, the newest last
    commanded_rad  (1 + m, J), commanded positions at the beginning of the observed step and at the ends of the m steps
                   that are planned from it on, m >= d
    """

    frames: Sequence[NDArray[np.uint8]]
    states_rad: FloatArray
    actions_rad: FloatArray
    mask: NDArray[np.bool_]
    prefix_rad: FloatArray
    seed: tuple[int, int]
    step: int = 0
    measured_rad: FloatArray = field(default_factory=lambda: NO_ROWS)
    commanded_rad: FloatArray = field(default_factory=lambda: NO_ROWS)


@dataclass(frozen=True)
class PolicyOutput:
    """One chunk, and the time that each part of the policy took.

    increments_rad  of the commanded joint positions, (horizon, J) rad per step; empty for a chunk of goals
    goals_rad       absolute joint goals (horizon, J), the first due at the end of the observed step; else empty
    """

    increments_rad: FloatArray
    engine_ns: tuple[int, ...]
    goals_rad: FloatArray = field(default_factory=lambda: NO_ROWS)

    @property
    def rows_rad(self) -> FloatArray:
        """Those that there are."""
        return self.goals_rad if len(self.goals_rad) else self.increments_rad


class Policy(Protocol):
    """What computes chunks: a bundle's engines, or one's own function.

    parts         what its times are of
    observations  frames and positions of one observation, `step_s` apart
    """

    shape: ChunkShape
    parts: tuple[str, ...]
    observations: int
    step_s: float

    @property
    def joints(self) -> int: ...

    def infer(self, observed: PolicyInput) -> PolicyOutput:
        """Computes one chunk. The caller checks that it is finite."""


class BundlePolicy(Policy, Protocol):
    """A policy that a bundle names."""

    arm: ArmSpec
    cameras: tuple[CameraSpec, ...]
    execute_steps: int

    def describe(self) -> tuple[str, ...]:
        """What runs each of its parts."""


@dataclass(frozen=True)
class PolicyDriver:
    """Base of the drivers: what computes the chunks of a policy family on the robot.

    A family that has none is run as its manifest says. `engine` is one of `edge.engines.engine_choices`.
    """

    task: str
    threads: int = 1
    engine: str = DEFAULT_ENGINE

    def check(self, bundle: Bundle, arm: ArmProfile) -> None:
        """Raises `VlaEdgeError` for a task, an arm or an engine that the bundle does not suit; opens nothing."""

    def open(self, bundle: Bundle, arm: ArmProfile) -> BundlePolicy:
        """The policy, ready to infer. Raises `VlaEdgeError`."""
        raise NotImplementedError


POLICIES: Registry[PolicyDriver] = Registry(
    "vla_edge.policies",
    "policy",
    {GRAPH: "edge.policy.graph_policy:GraphPolicies", "openpi": "edge.policy.remote:OpenPi"},
    InputError,
)


def _driver(bundle: Bundle) -> type[PolicyDriver]:
    family, engines = bundle.manifest.family, bundle.manifest.engines.values()
    if family in POLICIES.names():
        return POLICIES.load(family)
    if any(not spec.file.endswith(".onnx") for spec in engines):
        raise InputError(
            f"{bundle.path}: no package for policies of the family '{family}' is installed, and its engines are not "
            "ONNX files; install the package that made it"
        )
    return POLICIES.load(GRAPH)


def check_policy(bundle: Bundle, arm: ArmProfile, task: str, threads: int, engine: str) -> None:
    """What can be known to be wrong before anything is opened. Raises `VlaEdgeError`."""
    _driver(bundle)(task, threads, engine).check(bundle, arm)


def open_policy(bundle: Bundle, arm: str, task: str, threads: int, engine: str = DEFAULT_ENGINE) -> BundlePolicy:
    """Opens the policy of a bundle for the arm with that profile. Raises `VlaEdgeError`."""
    return _driver(bundle)(task, threads, engine).open(bundle, load_arm(arm))
