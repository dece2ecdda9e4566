"""A run without real time: policy, control, firmware and physics take turns on a simulated clock.

The code is the same as on the robot, down to the bytes of the frames; only processes, clocks and the line are
replaced. A run is a function of its arguments: it gives the same result every time.
"""

from __future__ import annotations

import math
import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from edge.sim.bench import BenchVerdict, Scene  # first: it chooses the GL backend before mujoco is imported

import mujoco
import numpy as np

from edge.arms import ArmProfile
from edge.bundle import Bundle
from edge.cameras import Frame
from edge.control import Controller, ControlSettings
from edge.errors import SafetyStop
from edge.inference import Inference
from edge.planning import Planner, PlannerStatus, PlanRequest, PlanResult
from edge.policy import ChunkPolicy
from edge.session import lead_us, wire_limits
from edge.sim.render import CameraRenderer
from edge.telemetry.recorder import Recorder
from firmware_bridge.client import DeviceClient
from firmware_bridge.link import Link
from firmware_bridge.simulator import LockstepDevice, SimulatedArm

CONTROL_PERIOD_MS = 4
SESSION = 1


@dataclass(frozen=True)
class LockstepSettings:
    """One episode.

    `latency_ms` is the simulated time from a request to its chunk, `jitter` the share by which each differs from it at
    most; `joining` replaces the planner, for comparisons with other ways to join chunks.
    """

    task: str
    duration_s: float
    execute_steps: int = 5
    latency_ms: float = 30.0
    seed: int = 0
    trace: Path | None = None
    jitter: float = 0.0
    joining: Callable[[Planner], JoiningPlanner] | None = None


class JoiningPlanner(Planner, Protocol):
    """A planner that changes chunks before control sees them; told of the controller before the first request."""

    controller: Controller


@dataclass(frozen=True)
class LockstepOutcome:
    """How an episode ended; `stop` is the reason of a safety stop."""

    verdict: BenchVerdict | None
    stop: str | None
    controller: Controller


class LockstepCamera:
    """Renders the world of the device in this process."""

    def __init__(self, model: mujoco.MjModel, device: LockstepDevice, size_px: int) -> None:
        self._data = mujoco.MjData(model)
        self._model, self._device = model, device
        self._renderer = CameraRenderer(model, size_px)
        self._sequence = -1

    def grab(self) -> Frame:
        self._data.qpos[:] = self._device.world()
        mujoco.mj_kinematics(self._model, self._data)
        mujoco.mj_camlight(self._model, self._data)
        self._sequence += 1
        return Frame(self._renderer.render(self._data), self._device.now_us * 1000, self._sequence)

    def close(self) -> None:
        self._renderer.close()


class InlinePlanner:
    """Computes at once and hands out the chunk when the simulated latency has passed."""

    def __init__(self, inference: Inference, device: LockstepDevice, settings: LockstepSettings) -> None:
        self._inference, self._device, self._settings = inference, device, settings
        self._draw = random.Random(settings.seed)
        self._waiting: tuple[int, PlanResult] | None = None

    def request(self, request: PlanRequest) -> None:
        share = 1 + self._settings.jitter * self._draw.uniform(-1, 1)
        latency_us = round(1000 * self._settings.latency_ms * share)
        self._waiting = (self._device.now_us + latency_us, self._inference.answer(request))

    def result(self) -> PlanResult | None:
        if self._waiting is None or self._device.now_us < self._waiting[0]:
            return None
        _, result = self._waiting
        self._waiting = None
        return result

    def status(self) -> PlannerStatus | None:
        return None


def run_lockstep(
    bundle: Bundle, arm: ArmProfile, policy: ChunkPolicy, scene: Scene, settings: LockstepSettings
) -> LockstepOutcome:
    """Runs one episode from the arm's home pose.

    The policy's task must be the settings' (see `edge.inference.open_policy`).
    """
    with tempfile.TemporaryDirectory(prefix="vla-edge-") as folder:
        model_file = Path(folder) / "scene.mjb"
        mujoco.mj_saveModel(scene.model, str(model_file))
        device = LockstepDevice(SimulatedArm(arm.name, arm.home_rad, model_file, settings.trace))
    camera = LockstepCamera(scene.model, device, policy.shape.frame_px[0])
    try:
        return _run(bundle, arm, policy, scene, settings, device, camera)
    finally:
        camera.close()
        device.close()


def _run(
    bundle: Bundle,
    arm: ArmProfile,
    policy: ChunkPolicy,
    scene: Scene,
    settings: LockstepSettings,
    device: LockstepDevice,
    camera: LockstepCamera,
) -> LockstepOutcome:
    def clock_ns() -> int:
        return device.now_us * 1000

    def idle(seconds: float) -> None:
        device.tick(math.ceil(1000 * seconds))

    client = DeviceClient(Link(device, clock_ns, SESSION), idle)
    device.tick()
    caps = client.connect(arm.name, arm.hash32, arm.dof)
    client.set_limits(wire_limits(arm.operating))
    client.synchronise_clock()
    inference = Inference(policy, [camera], settings.seed, clock_ns)
    planner: Planner = InlinePlanner(inference, device, settings)
    joining = settings.joining(planner) if settings.joining else None
    recorder = Recorder(round(110 * (settings.duration_s + 1)), arm.dof)
    controller = Controller(
        client,
        joining or planner,
        arm,
        bundle.manifest.policy,
        policy.embodiment.step_s,
        ControlSettings(settings.execute_steps, lead_us(caps.min_lead_us, None)),
        recorder,
    )
    if joining is not None:
        joining.controller = controller
    controller.latency.add(round(1000 * settings.latency_ms * (1 + settings.jitter)))
    client.arm(client.wait_for_state().measured_urad, loop_tick=1)
    stop = None
    try:
        for tick in range(round(1000 * settings.duration_s / CONTROL_PERIOD_MS)):
            controller.step(clock_ns(), tick + 2)
            client.keep_clock(clock_ns(), slack_s=1.0)
            device.tick(CONTROL_PERIOD_MS)
        client.stop()
        device.tick(1000)
    except SafetyStop as error:
        stop = str(error)
        device.tick(1000)
    return LockstepOutcome(scene.verdict(settings.task, np.array(device.world())), stop, controller)
