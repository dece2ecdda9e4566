"""The answer to a request: chunk, pause or failure; and its way through the shared memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge.bundle import load_bundle
from edge.cameras import CameraUnhealthy, Frame
from edge.errors import VlaEdgeError
from edge.inference.process import Inference
from edge.inference.records import Outcome, PlanningRecords, PlanRequest
from edge.policy.base import open_policy
from edge.policy.graph_policy import GraphPolicy

TASK = "reach the red cube"


class Camera:
    """Always the same grey frame, or a refusal."""

    def __init__(self, captured_ns: int) -> None:
        self.captured_ns = captured_ns
        self.fault: Exception | None = None

    def grab(self) -> Frame:
        if self.fault is not None:
            raise self.fault
        return Frame(np.full((128, 128, 3), 90, np.uint8), self.captured_ns, 0)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def policy(bundle_path: Path) -> GraphPolicy:
    return open_policy(load_bundle(bundle_path), "franka", TASK, 1)


def request(policy: GraphPolicy, identity: int = 5) -> PlanRequest:
    history = policy.shape.history
    nothing = np.zeros((history, 7))
    return PlanRequest(identity, 0, 0, nothing, nothing, np.zeros(history, np.bool_), *[np.zeros((0, 7))] * 3)


def test_a_chunk_says_when_its_frame_was_captured(policy: GraphPolicy) -> None:
    result = Inference(policy, [Camera(777)], 0, lambda: 1000).answer(request(policy))
    assert result.outcome is Outcome.CHUNK and np.isfinite(result.increments_rad).all()
    assert result.captured_ns == 777


def test_an_unhealthy_camera_is_a_pause_and_a_broken_one_a_failure(policy: GraphPolicy) -> None:
    camera = Camera(0)
    inference = Inference(policy, [camera], 0, lambda: 1000)
    camera.fault = CameraUnhealthy("camera 1 (x) is stale; fix")
    paused = inference.answer(request(policy))
    assert (paused.outcome, paused.message) == (Outcome.PAUSED, "camera 1 (x) is stale; fix")
    assert np.isnan(paused.increments_rad).all()
    camera.fault = VlaEdgeError("lens fell off")
    assert inference.answer(request(policy)).outcome is Outcome.FAILED


def test_nothing_starts_with_an_unhealthy_camera(policy: GraphPolicy) -> None:
    camera, waited = Camera(0), []
    camera.fault = CameraUnhealthy("camera 1 (x) is frozen")
    with pytest.raises(VlaEdgeError, match="camera 1"):
        Inference(policy, [camera], 0, lambda: 1000).warm_up(waited.append)
    assert 1 < sum(waited) < 10


def test_a_camera_that_recovers_during_the_warm_up_is_waited_for(policy: GraphPolicy) -> None:
    camera, waited = Camera(0), []
    camera.fault = CameraUnhealthy("camera 1 (x) is stale")

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        camera.fault = None if len(waited) == 3 else camera.fault

    Inference(policy, [camera], 0, lambda: 1000).warm_up(sleep)
    assert len(waited) == 3


@pytest.mark.parametrize("fault", [None, CameraUnhealthy("camera 1 (x) is stale; fix")])
def test_an_answer_survives_the_shared_memory(policy: GraphPolicy, fault: Exception | None) -> None:
    camera = Camera(12345)
    camera.fault = fault
    result = Inference(policy, [camera], 0, lambda: 1000).answer(request(policy))
    records = PlanningRecords(policy.shape, 7)
    records.results.write(result)
    found = records.results.read(0)
    assert found is not None
    copy = found[1]
    assert (copy.id, copy.outcome, copy.message, copy.captured_ns) == (
        result.id,
        result.outcome,
        result.message,
        0 if fault else 12345,
    )
    assert np.array_equal(copy.increments_rad, result.increments_rad, equal_nan=True)
