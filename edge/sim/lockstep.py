"""A run without real time: policy, control, firmware and physics take turns on a simulated clock.

The code is the same as on the robot, down to the bytes of the frames; only processes, clocks and the line are
replaced. A run is a function of its arguments: it gives the same result every time.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.arms import ArmProfile
from edge.bundle import Bundle, ChunkShape
from edge.cameras import Frame
from edge.errors import SafetyStop
from edge.inference.film import CameraView, told
from edge.inference.frames import FrameHistory
from edge.inference.process import Inference
from edge.inference.records import Planner, PlannerStatus, PlanRequest, PlanResult
from edge.inference.source import ChunkSource
from edge.log.file_log import FileLog
from edge.log.records import Kind
from edge.log.taps import open_client, open_recorder, tapped_planner
from edge.plan.replanner import ControlSettings
from edge.policy.base import BundlePolicy
from edge.run.arm import ConnectedArm
from edge.run.controller import Controller
from edge.run.ending import SAFETY_STOP
from edge.run.made_from import pack_controller
from edge.run.report import cameras_header, run_header
from edge.run.settings import RunSettings
from edge.sim.library import mujoco, save_model
from edge.sim.render import CameraRenderer
from edge.sim.scenes import BenchVerdict, Scene, scene_cameras
from edge.sim.stage import CAMERA
from firmware_bridge.simulator import LockstepDevice, SimulatedArm
from firmware_bridge.transports import Transport

CONTROL_PERIOD_MS = 4
SESSION = 1
FOLLOW_EVERY_MS = 100
"""How often a run keeps where everything is."""
REST_MS, WATCH_EVERY_MS = 1000, 20
"""After the stop the arm has this long to come to rest; its last part is what is judged."""


@dataclass(frozen=True)
class LockstepSettings:
    """One episode.

    `latency_ms` is the simulated time from a request to its chunk, `jitter` the share by which each differs from it at
    most; `joining` replaces the planner, for comparisons with other ways to join chunks; `log` is a file to write.
    """

    task: str
    duration_s: float
    execute_steps: int = 5
    ensemble: int = 1
    latency_ms: float = 30.0
    seed: int = 0
    trace: Path | None = None
    jitter: float = 0.0
    joining: Callable[[Planner], JoiningPlanner] | None = None
    log: Path | None = None


class JoiningPlanner(Planner, Protocol):
    """A planner that changes chunks before control sees them."""

    def attach(self, controller: Controller) -> None:
        """Takes the controller that will make the requests, before the first one."""


class SteppedDevice(Transport, Protocol):
    """A device that moves on only when it is told to, with the world around it."""

    @property
    def now_us(self) -> int:
        """Device time."""

    def tick(self, count: int = 1) -> None:
        """Lets so many milliseconds pass."""

    def world(self) -> Sequence[float] | NDArray[np.float64]:
        """Generalised positions of the scene."""


OpenDevice: TypeAlias = Callable[[ArmProfile, Scene, LockstepSettings], AbstractContextManager[SteppedDevice]]


@dataclass(frozen=True)
class Track:
    """Where everything was while the policy had the arm: generalised positions (n, nq) at `time_s` (n,)."""

    time_s: NDArray[np.float64]
    world: NDArray[np.float64]


@dataclass(frozen=True)
class LockstepOutcome:
    """How an episode ended; `stop` is the reason of a safety stop."""

    verdict: BenchVerdict | None
    stop: str | None
    controller: Controller
    track: Track

    @property
    def done(self) -> bool:
        """Whether the task is done at the end; where a run ended by a safety stop it is not, wherever the arm rests."""
        return self.stop is None and self.verdict is not None and self.verdict.success


class LockstepCamera:
    """Renders the world of the device in this process, as the scene's camera of that name sees it."""

    on_demand = True

    def __init__(
        self,
        model: mujoco.MjModel,
        device: SteppedDevice,
        frame_px: tuple[int, int],
        name: str = CAMERA,
        on_frame: Callable[[Frame], None] | None = None,
    ) -> None:
        self._on_frame = on_frame
        self._data = mujoco.MjData(model)
        self._model, self._device, self._name = model, device, name
        self._renderer = CameraRenderer(model, *frame_px)
        self._sequence = -1

    def grab(self) -> Frame:
        self._data.qpos[:] = self._device.world()
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._sequence += 1
        frame = Frame(self._renderer.render(self._data, self._name), self._device.now_us * 1000, self._sequence)
        if self._on_frame is not None:
            self._on_frame(frame)
        return frame

    def close(self) -> None:
        self._renderer.close()


class InlinePlanner:
    """Computes at once and hands out the chunk when the simulated latency has passed."""

    def __init__(self, source: ChunkSource, device: SteppedDevice, settings: LockstepSettings) -> None:
        self._source, self._device, self._settings = source, device, settings
        self._draw = random.Random(settings.seed)
        self._waiting: tuple[int, PlanResult] | None = None

    def request(self, request: PlanRequest) -> None:
        share = 1 + self._settings.jitter * self._draw.uniform(-1, 1)
        latency_us = round(1000 * self._settings.latency_ms * share)
        self._waiting = (self._device.now_us + latency_us, self._source.answer(request))

    def result(self) -> PlanResult | None:
        if self._waiting is None or self._device.now_us < self._waiting[0]:
            return None
        _, result = self._waiting
        self._waiting = None
        return result

    def status(self) -> PlannerStatus | None:
        return None


def run_lockstep(
    bundle: Bundle,
    arm: ArmProfile,
    policy: BundlePolicy,
    scene: Scene,
    settings: LockstepSettings,
    open_device: OpenDevice | None = None,
) -> LockstepOutcome:
    """Runs one episode of a bundle from the scene's start, on the simulated device or one that is stepped likewise.

    The policy's task must be the settings' (see `edge.policy.base.open_policy`).
    """
    shape, specs = bundle.manifest.shape, bundle.manifest.cameras
    names = scene_cameras(scene, [spec.name for spec in specs])
    with (open_device or _device)(arm, scene, settings) as device:

        def clock_ns() -> int:
            return device.now_us * 1000

        log = None
        if settings.log is not None:
            views = [CameraView(spec.name, spec.frame_px) for spec in specs]
            log = FileLog(settings.log, _header(bundle, arm, policy, settings, views), views, clock_ns)
        sinks = [log] if log else []
        history = FrameHistory(len(specs), policy.observations, policy.step_s)
        cameras = [
            LockstepCamera(scene.model, device, spec.frame_px, name, told([*sinks, history], number))
            for number, (spec, name) in enumerate(zip(specs, names))
        ]
        try:
            inference = Inference(policy, cameras, settings.seed, clock_ns, sinks, history)
            source = KeepingSource(inference)
            outcome = _run(shape, policy.arm.step_s, arm, source, scene, settings, device, inference.look, log)
            if log is not None:
                log.close({"ended": SAFETY_STOP if outcome.stop else "duration", "error": outcome.stop})
            return outcome
        finally:
            for camera in cameras:
                camera.close()


def _header(
    bundle: Bundle, arm: ArmProfile, policy: BundlePolicy, settings: LockstepSettings, views: Sequence[CameraView]
) -> dict[str, Any]:
    run = RunSettings(
        arm.name,
        str(bundle.path),
        settings.task,
        seed=settings.seed,
        duration_s=settings.duration_s,
        execute_steps=settings.execute_steps,
    )
    return run_header(bundle, arm, run, {"bridge": "lockstep", "runs_on": policy.describe(), **cameras_header(views)})


class KeepingSource:
    """Inference whose frames are handed on with each of its answers."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    def answer(self, request: PlanRequest) -> PlanResult:
        result = self._inference.answer(request)
        self._inference.keep()
        return result


def run_source(
    shape: ChunkShape,
    step_s: float,
    arm: ArmProfile,
    scene: Scene,
    settings: LockstepSettings,
    open_source: Callable[[LockstepDevice], ChunkSource],
) -> LockstepOutcome:
    """Runs one episode of any source of chunks; `open_source` gets the device, whose world it may look at."""
    with _device(arm, scene, settings) as device:
        return _run(shape, step_s, arm, open_source(device), scene, settings, device)


@contextmanager
def _device(arm: ArmProfile, scene: Scene, settings: LockstepSettings) -> Iterator[LockstepDevice]:
    with tempfile.TemporaryDirectory(prefix="vla-edge-") as folder:
        model_file = Path(folder) / "scene.mjb"
        save_model(scene.model, model_file)
        device = LockstepDevice(SimulatedArm(arm.name, scene.start, model_file, settings.trace))
    try:
        yield device
    finally:
        device.close()


def _run(
    shape: ChunkShape,
    step_s: float,
    arm: ArmProfile,
    source: ChunkSource,
    scene: Scene,
    settings: LockstepSettings,
    device: SteppedDevice,
    look: Callable[[int], None] = lambda now_ns: None,
    log: FileLog | None = None,
) -> LockstepOutcome:
    def clock_ns() -> int:
        return device.now_us * 1000

    def idle(seconds: float) -> None:
        device.tick(math.ceil(1000 * seconds))

    journal = log.journal if log is not None else None
    client = open_client(device, clock_ns, SESSION, idle, journal)
    device.tick()
    connected = ConnectedArm.connect(arm, client)
    planner = tapped_planner(InlinePlanner(source, device, settings), journal)
    joining = settings.joining(planner) if settings.joining else None
    recorder = open_recorder(round(110 * (settings.duration_s + 1)), arm.dof, journal)
    latency_us = round(1000 * settings.latency_ms * (1 + settings.jitter))
    controller = Controller(
        client,
        joining or planner,
        arm,
        shape,
        step_s,
        ControlSettings(settings.execute_steps, connected.lead_us(), ensemble=settings.ensemble),
        recorder,
        latency_us,
    )
    if journal is not None:
        journal.put(Kind.CONTROLLER, pack_controller(controller, step_s, latency_us))
    if joining is not None:
        joining.attach(controller)
    connected.switch_on()
    stop, track = None, []
    try:
        for tick in range(round(1000 * settings.duration_s / CONTROL_PERIOD_MS)):
            if tick * CONTROL_PERIOD_MS % FOLLOW_EVERY_MS == 0:
                track.append(device.world())
            look(clock_ns())
            controller.step(clock_ns(), tick + 2)
            client.keep_clock(clock_ns(), slack_s=1.0)
            device.tick(CONTROL_PERIOD_MS)
        client.stop()
    except SafetyStop as error:
        stop = str(error)
    track.append(device.world())
    followed = Track(np.arange(len(track)) * FOLLOW_EVERY_MS / 1000, np.array(track))
    verdict = scene.verdict(settings.task, _rest(device, scene.watch_s))
    if verdict is not None:
        verdict = replace(verdict, hold=scene.hold(settings.task, followed.time_s, followed.world))
    return LockstepOutcome(verdict, stop, controller, followed)


def _rest(device: SteppedDevice, watch_s: float) -> NDArray[np.float64]:
    """Lets the arm come to rest; returns the world's positions (n, nq) over the last `watch_s`."""
    watched_ms = WATCH_EVERY_MS * round(1000 * watch_s / WATCH_EVERY_MS)
    device.tick(REST_MS - watched_ms)
    track = [device.world()]
    for _ in range(watched_ms // WATCH_EVERY_MS):
        device.tick(WATCH_EVERY_MS)
        track.append(device.world())
    return np.array(track)
