"""A policy that answers requests in this process, as the inference process does."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from bench.harness import Run
from edge.bundle import Bundle
from edge.engines import DEFAULT_ENGINE
from edge.errors import InputError
from edge.inference.process import Inference, open_cameras
from edge.inference.records import Outcome, PlanRequest
from edge.policy.base import open_policy

TASK = "reach the red cube"
ARM = "franka"
MADE_HERE = "edge-bench"
"""What the manifest of a bundle made for measuring names as its maker."""
STILL_RAD = 1e-6
"""Scale of actions that only go down the wire, an untrained policy's among them: they move nothing."""
BOUNDARY = (
    "from asking the cameras (a test pattern at the camera's own size) to joint increments in radians; "
    "resizing and normalising are inside; one process, no mailbox, no wire"
)


def request_of(bundle: Bundle, joints: int, number: int) -> PlanRequest:
    """A request in the middle of a motion: a full history and a prefix of two committed steps."""
    shape = bundle.manifest.shape
    return PlanRequest(
        id=number,
        step=number,
        sent_ns=0,
        states_rad=np.zeros((shape.history, joints)),
        actions_rad=np.zeros((shape.history, joints)),
        mask=np.ones(shape.history, dtype=np.bool_),
        prefix_rad=np.zeros((2, joints)),
        measured_rad=np.zeros((shape.measured, joints)),
        commanded_rad=np.zeros((3 if shape.measured else 0, joints)),
    )


@dataclass(frozen=True)
class Runner:
    """How a bundle is run: on which arm, with which task, engine (`edge.engines.engine_choices`), threads, seed."""

    arm: str = ARM
    task: str = TASK
    engine: str = DEFAULT_ENGINE
    threads: int = 1
    seed: int = 0


def chunk_run(bundle: Bundle, how: Runner) -> Run:
    """Opens the policy and its cameras; each call looks and computes one chunk. Raises `VlaEdgeError`."""
    policy = open_policy(bundle, how.arm, how.task, how.threads, how.engine)
    cameras, history = open_cameras(policy, ["pattern:"] * len(policy.cameras), [], ExitStack())
    inference = Inference(policy, cameras, how.seed, time.monotonic_ns, history=history)
    inference.look_around(time.sleep)
    request = request_of(bundle, policy.joints, 1)

    def run() -> object:
        result = inference.answer(request)
        if result.outcome is not Outcome.CHUNK:
            raise InputError(f"the policy gave no chunk: {result.message}")
        return result

    return run
