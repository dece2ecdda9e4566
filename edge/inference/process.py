"""The inference process.

Takes the newest request, looks, computes one chunk, answers. It may stall; control may not.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from edge.arms import load_arm
from edge.bundle import load_bundle
from edge.cameras import Camera, CameraUnhealthy, open_camera
from edge.engines import DEFAULT_ENGINE
from edge.errors import VlaEdgeError
from edge.inference.film import DRAWN_NS, FrameOutlets, FrameSink, told
from edge.inference.frames import LOOKS, FrameHistory, Frames
from edge.inference.layout import Newest
from edge.inference.records import Outcome, Phase, PlannerStatus, PlanningRecords, PlanRequest, PlanResult
from edge.policy.base import BundlePolicy, Policy, PolicyInput, open_policy

WARM_CALLS = 6
WARM_PAUSES, WARM_PAUSE_S = 60, 0.05
POLL_S = 0.0005
BEAT_NS = 20_000_000


@dataclass(frozen=True)
class InferenceSettings:
    """What decides the chunks of a run; `bundle` is empty for a policy that is a Python function."""

    arm: str
    bundle: str = ""
    task: str = ""
    cameras: tuple[str, ...] = ()
    """The URL of each camera, in the policy's order."""
    seed: int = 0
    engine: str = DEFAULT_ENGINE
    threads: int = 1
    """Of each engine."""
    inject_latency_ms: float = 0.0
    """Added to every inference."""
    cpus: tuple[int, ...] = ()
    """Where inference may run; empty for anywhere."""
    manifest_sha256: str = ""
    """Of the bundle that control has checked: the engines that are opened are those of no other."""


class Inference:
    """Answers requests with one policy and its cameras. Of one that sees several frames, `history` is told them all."""

    def __init__(
        self,
        policy: Policy,
        cameras: Sequence[Camera],
        seed: int,
        clock_ns: Callable[[], int],
        sinks: Sequence[FrameSink] = (),
        history: FrameHistory | None = None,
    ) -> None:
        self.policy, self._sinks = policy, sinks
        self._drawn = [camera for camera in cameras if sinks and getattr(camera, "on_demand", False)]
        self._drawn_ns = 0
        self._answered = 0
        self._frames = Frames(cameras, history)
        self._seed = seed
        self._clock_ns = clock_ns
        self._no_rows = np.zeros((0, policy.joints))

    def answer(self, request: PlanRequest) -> PlanResult:
        """Looks through every camera and computes the chunk. A pause and a failure are answers too."""
        started_ns = self._clock_ns()
        try:
            images, captured_ns = self._frames.observe()
            camera_ns = self._clock_ns() - started_ns
            output = self.policy.infer(policy_input(request, images, self._seed))
        except CameraUnhealthy as unhealthy:
            return self._nothing(request, Outcome.PAUSED, str(unhealthy))
        except (VlaEdgeError, ValueError, RuntimeError) as error:
            return self._nothing(request, Outcome.FAILED, str(error))
        self._answered = request.id
        return PlanResult(
            request.id,
            Outcome.CHUNK,
            "",
            camera_ns,
            np.array(output.engine_ns, np.int64),
            captured_ns,
            *(rows if len(rows) else self._no_rows for rows in (output.increments_rad, output.goals_rad)),
        )

    def look(self, now_ns: int) -> None:
        """Takes a frame in between, for a policy that sees earlier ones too."""
        self._frames.look(now_ns)
        if self._drawn and now_ns - self._drawn_ns >= DRAWN_NS:
            self._drawn_ns = now_ns
            for camera in self._drawn:
                with suppress(CameraUnhealthy):  # an observation says so
                    camera.grab()

    @property
    def watched(self) -> bool:
        """Whether there are cameras that draw for those who watch."""
        return bool(self._drawn)

    def keep(self) -> None:
        """Hands on the frames of the chunk that was answered last, once."""
        if self._answered:
            for sink in self._sinks:
                sink.observed(self._answered, self._frames.observed)
        self._answered = 0

    def _nothing(self, request: PlanRequest, outcome: Outcome, message: str) -> PlanResult:
        nothing = np.full((self.policy.shape.horizon, request.states_rad.shape[1]), np.nan)
        return PlanResult.untimed(request.id, outcome, nothing, message)

    def warm_up(self, sleep: Callable[[float], None]) -> tuple[int, int]:
        """Calls before anything moves: the time of the first (cold) one, and the slowest of the others.

        A camera that is unhealthy at first has a few seconds to recover. Raises `VlaEdgeError`.
        """
        shape, joints = self.policy.shape, self.policy.joints
        blank = PlanRequest(
            id=0,
            step=0,
            sent_ns=0,
            states_rad=np.zeros((shape.history, joints)),
            actions_rad=np.zeros((shape.history, joints)),
            mask=np.zeros(shape.history, dtype=np.bool_),
            prefix_rad=np.zeros((0, joints)),
            measured_rad=np.zeros((shape.measured, joints)),
            commanded_rad=np.zeros((1 if shape.measured else 0, joints)),
        )
        times: list[int] = []
        patience = WARM_PAUSES
        self.look_around(sleep)
        while len(times) < WARM_CALLS:
            started_ns = self._clock_ns()
            result = self.answer(blank)
            if result.outcome is Outcome.CHUNK:
                times.append(self._clock_ns() - started_ns)
            elif result.outcome is Outcome.PAUSED and patience:
                patience -= 1
                sleep(WARM_PAUSE_S)
                self.look_around(sleep)
            else:
                raise VlaEdgeError(result.message)
        return times[0], max(times[1:])

    def look_around(self, sleep: Callable[[float], None]) -> None:
        """Waits until there are the frames of an observation, for a policy that sees earlier ones too."""
        period_s = self._frames.period_s
        for _ in range(self.policy.observations * LOOKS if period_s else 0):
            self._frames.look(self._clock_ns())
            sleep(period_s)


def open_cameras(
    policy: BundlePolicy, urls: Sequence[str], sinks: Sequence[FrameSink], opened: ExitStack
) -> tuple[list[Camera], FrameHistory]:
    """The cameras of a policy in its order, closed with `opened`, and what keeps the frames of its observations.

    Where an observation has earlier frames, a camera that draws on demand draws twice a step: a long inference would
    leave a gap otherwise. Raises `CameraError`.
    """
    history = FrameHistory(len(policy.cameras), policy.observations, policy.step_s)
    cameras: list[Camera] = []
    for number, (spec, url) in enumerate(zip(policy.cameras, urls, strict=True)):
        camera = open_camera(
            url,
            spec.frame_px,
            spec.name,
            exact=spec.fit == "exact",
            on_frame=told([*sinks, history], number),
            drawn_every_ns=history.step_ns // LOOKS if history.earlier else 0,
        )
        cameras.append(opened.enter_context(closing(camera)))
        history.check(spec.name, camera.traits.period_ns)
    return cameras, history


def policy_input(request: PlanRequest, frames: Sequence[NDArray[np.uint8]], seed: int) -> PolicyInput:
    """What the chunk of a request is computed from."""
    return PolicyInput(
        frames,
        request.states_rad,
        request.actions_rad,
        request.mask,
        request.prefix_rad,
        (seed, request.id),
        request.step,
        request.measured_rad,
        request.commanded_rad,
    )


def serve(records: PlanningRecords, inference: Inference, inject_latency_ms: float, runs_on: str) -> None:
    """Answers requests until the process is ended; `runs_on` is what runs the policy, in words."""
    records.statuses.write(PlannerStatus(Phase.WARMING, 0, 0, 0, ""))
    cold_ns, warm_ns = inference.warm_up(time.sleep)
    warm_ns += round(inject_latency_ms * 1e6)
    requests, beat, last_beat_ns = Newest(records.requests), 0, 0
    while True:
        now_ns = time.monotonic_ns()
        if now_ns - last_beat_ns > BEAT_NS:
            beat, last_beat_ns = beat + 1, now_ns
            records.statuses.write(PlannerStatus(Phase.READY, beat, cold_ns, warm_ns, runs_on))
        request = requests.take()
        if request is None:
            inference.look(now_ns)
            time.sleep(POLL_S)
            continue
        result = inference.answer(request)
        if inject_latency_ms:
            time.sleep(inject_latency_ms / 1000)
        records.results.write(result)
        inference.keep()


def arguments_of(settings: InferenceSettings, descriptor: int, outlets: dict[str, int]) -> list[str]:
    """What this module is started with as a process; `outlets` are the descriptors of `FrameOutlets`."""
    values = {field.name: getattr(settings, field.name) for field in fields(InferenceSettings)}
    arguments = ["--memory", str(descriptor), "--settings", json.dumps(values)]
    return [*arguments, "--outlets", json.dumps(outlets)]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="edge.inference.process", description=__doc__)
    parser.add_argument("--memory", type=int, required=True, help="descriptor of the shared memory")
    parser.add_argument("--settings", type=json.loads, required=True)
    parser.add_argument("--outlets", type=json.loads, default={}, help="descriptors of where frames go to, by name")
    args = parser.parse_args(argv)
    settings = InferenceSettings(**args.settings)
    if settings.cpus:
        os.sched_setaffinity(0, settings.cpus)
    bundle = load_bundle(settings.bundle, manifest_sha256=settings.manifest_sha256)
    joints = load_arm(settings.arm).dof
    records = PlanningRecords(bundle.manifest.shape, joints, args.memory)
    opened = ExitStack()
    try:
        records.statuses.write(PlannerStatus(Phase.LOADING, 0, 0, 0, ""))
        policy = open_policy(bundle, settings.arm, settings.task, settings.threads, settings.engine)
        sinks = FrameOutlets.opened([spec.frame_px for spec in policy.cameras], args.outlets).sinks
        cameras, history = open_cameras(policy, settings.cameras, sinks, opened)
        inference = Inference(policy, cameras, settings.seed, time.monotonic_ns, sinks, history)
        serve(records, inference, settings.inject_latency_ms, ", ".join(sorted(set(policy.describe()))))
    except VlaEdgeError as error:
        records.statuses.write(PlannerStatus(Phase.FAILED, 0, 0, 0, str(error)))
        return error.exit_code
    finally:
        opened.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
