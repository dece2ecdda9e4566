"""The frames of an observation: those of the steps before it, however long inference takes and whoever draws them."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue

import numpy as np
import pytest

from edge.cameras import CameraError, CameraUnhealthy, Frame
from edge.cameras.base import SourceTraits
from edge.cameras.health import HealthLimits
from edge.cameras.paced import PacedSource
from edge.cameras.watched import LiveCamera, Watch
from edge.inference.film import told
from edge.inference.frames import FrameHistory, Frames
from edge.inference.process import Inference
from edge.inference.records import Outcome, PlanRequest
from edge.policy.base import PolicyInput, PolicyOutput
from edge.policy.function_policy import chunk_shape
from tests.edge.cameras.test_health import until

MS = 1_000_000
STEP_S, SEEN, HORIZON = 0.1, 3, 4
NONE = np.zeros((0, 1))
REQUEST = PlanRequest(1, 0, 0, NONE, NONE, np.zeros(0, np.bool_), NONE, NONE, NONE)


class Sensor:
    """A frame in 10 ms of simulated time, grey by its number, in the capture thread of a camera."""

    traits = SourceTraits(10 * MS, False, "a sensor", "look at the cable")

    def __init__(self, history: FrameHistory) -> None:
        self.now_ns = 0
        self._due: SimpleQueue[Frame | None] = SimpleQueue()
        watch = Watch("sensor", HealthLimits.of(self.traits), "")
        self.camera = LiveCamera(self, lambda: self, watch, lambda: self.now_ns, told([history], 0))

    def let_pass(self, milliseconds: int) -> None:
        """Returns when the capture thread has taken every frame of that time."""
        for _ in range(0, milliseconds, 10):
            self.now_ns += 10 * MS
            number = self.now_ns // (10 * MS)
            self._due.put(Frame(np.full((2, 2, 3), number, np.uint8), self.now_ns, number))
        assert until(lambda: self.camera._slot[0].newest_ns == self.now_ns)

    def read(self) -> Frame:
        frame = self._due.get()
        if frame is None:
            raise CameraError("closed")
        return frame

    def close(self) -> None:
        pass

    def end(self) -> None:
        self.camera._ended.set()
        self._due.put(None)
        self.camera.close()


class SlowPolicy:
    """Sees three observations, takes `takes` to answer, and notes the greys that it saw."""

    shape, parts, joints, observations, step_s = chunk_shape(HORIZON), ("all",), 1, SEEN, STEP_S

    def __init__(self, takes: Callable[[], object]) -> None:
        self._takes = takes
        self.saw: list[list[int]] = []

    def infer(self, observed: PolicyInput) -> PolicyOutput:
        self.saw.append([int(image[0, 0, 0]) for image in observed.frames[0]])
        self._takes()
        return PolicyOutput(np.zeros((HORIZON, 1)), (0,))


@pytest.mark.parametrize("takes_ms", [10, 90, 450])
def test_frames_are_kept_while_inference_computes(takes_ms: int) -> None:
    """One request after another, nobody looks in between: each sees the frames of one and of two steps before."""
    history = FrameHistory(1, SEEN, STEP_S)
    sensor = Sensor(history)
    policy = SlowPolicy(lambda: sensor.let_pass(takes_ms))
    inference = Inference(policy, [sensor.camera], 0, lambda: sensor.now_ns, history=history)
    sensor.let_pass(300)
    outcomes = [inference.answer(REQUEST).outcome for _ in range(4)]
    sensor.end()
    assert outcomes == [Outcome.CHUNK] * 4
    newest = [30 + number * takes_ms // 10 for number in range(4)]
    assert policy.saw == [[last - 20, last - 10, last] for last in newest]


def test_without_the_frame_of_a_step_before_there_is_a_pause() -> None:
    history = FrameHistory(1, SEEN, STEP_S)
    sensor = Sensor(history)
    inference = Inference(SlowPolicy(lambda: None), [sensor.camera], 0, lambda: sensor.now_ns, history=history)
    sensor.let_pass(50)
    paused = inference.answer(REQUEST)
    sensor.end()
    assert paused.outcome is Outcome.PAUSED and "no frame of the step before yet" in paused.message


class Drawn:
    """A camera that draws when it is asked; nobody else takes its frames."""

    on_demand = True

    def __init__(self, history: FrameHistory) -> None:
        self.now_ns, self._told = 0, told([history], 0)

    def grab(self) -> Frame:
        frame = Frame(np.full((2, 2, 3), self.now_ns // (10 * MS), np.uint8), self.now_ns, 0)
        if self._told is not None:
            self._told(frame)
        return frame

    def close(self) -> None:
        pass


def test_a_camera_that_draws_on_demand_is_looked_through_in_between() -> None:
    history = FrameHistory(1, SEEN, STEP_S)
    camera = Drawn(history)
    frames = Frames([camera], history)
    with pytest.raises(CameraUnhealthy, match="no frame of the step before yet"):
        frames.observe()
    for camera.now_ns in range(0, 2_000 * MS + 1, 4 * MS):
        frames.look(camera.now_ns)
    images, captured_ns = frames.observe()
    assert captured_ns == 2_000 * MS and images[0].shape == (3, 2, 2, 3)
    assert [int(image[0, 0, 0]) for image in images[0]] == pytest.approx([180, 190, 200], abs=2.5)


def test_a_single_observation_is_the_newest_frame_alone() -> None:
    camera = Drawn(FrameHistory(1))
    camera.now_ns = 50 * MS
    images, captured_ns = Frames([camera]).observe()
    assert images[0].shape == (2, 2, 3) and captured_ns == 50 * MS
    assert Frames([]).observe() == ([], 0)


@pytest.mark.parametrize(("fps", "refused"), [(30, False), (6, False), (5, True)])
def test_a_camera_that_is_too_slow_is_refused(fps: int, refused: bool) -> None:
    history = FrameHistory(1, 2, STEP_S)
    if refused:
        with pytest.raises(CameraError, match=r"camera front gives 5 frames .* 100 ms apart; set it to 10 or more"):
            history.check("front", round(1e9 / fps))
    else:
        history.check("front", round(1e9 / fps))
    FrameHistory(1).check("front", round(1e9 / fps))


def test_what_draws_on_demand_can_be_made_to_draw_at_a_steady_rate() -> None:
    """Opened where it is read; a drawing that takes longer than a period leaves frames out and goes on in time."""
    now_ns, opened, drawing_ns = 0, 0, 5 * MS

    def sleep(seconds: float) -> None:
        nonlocal now_ns
        now_ns += round(1e9 * seconds)

    class Source:
        traits = SourceTraits(0, True, "drawn", "")

        def read(self) -> Frame:
            nonlocal now_ns
            frame = Frame(np.zeros((1, 1, 3), np.uint8), now_ns, 0)
            now_ns += drawing_ns
            return frame

        def close(self) -> None:
            nonlocal opened
            opened -= 1

    def open_source() -> Source:
        nonlocal opened
        opened += 1
        return Source()

    paced = PacedSource(open_source, Source.traits, 20 * MS, lambda: now_ns, sleep)
    assert opened == 0 and paced.traits.period_ns == 20 * MS
    assert [paced.read().captured_ns // MS for _ in range(3)] == [0, 20, 40]
    drawing_ns = 50 * MS
    assert [paced.read().captured_ns // MS for _ in range(3)] == [60, 110, 160]
    drawing_ns = 5 * MS
    assert [paced.read().captured_ns // MS for _ in range(3)] == [210, 220, 240]
    paced.close()
    assert opened == 0
