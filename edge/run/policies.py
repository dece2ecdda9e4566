"""What can run on an arm: a bundle in a process of its own, or a Python function in a thread."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, get_args, runtime_checkable

from edge.arms import ArmProfile
from edge.bundle import Bundle, CameraSpec, ChunkShape, load_bundle
from edge.cameras import open_camera
from edge.errors import InputError
from edge.inference.film import CameraView, told
from edge.inference.handle import InferenceProcess
from edge.inference.process import Inference
from edge.inference.source import InferenceHandle
from edge.inference.thread import InferenceThread
from edge.plan.ensemble import MOST_CHUNKS
from edge.policy.base import check_policy
from edge.policy.function_policy import Answer, FunctionPolicy, PolicyFunction, chunk_shape
from edge.run.display import Display
from edge.run.settings import RunSettings
from firmware_bridge.client import DeviceClient
from firmware_bridge.codes import MAX_KNOTS, MICRO
from firmware_bridge.constants import MAX_SPACING_US, MIN_SPACING_US

EXECUTE_STEPS = 5
"""Of a function's chunk, before the next one is requested."""
FRAME_PX = (224, 224)
"""Of the frames that a function sees."""


@dataclass(frozen=True)
class FunctionSettings:
    """Of a function: seconds a step, most steps of an answer, and whether its rows are "goals" or "increments"."""

    step_s: float = 0.1
    horizon: int = 15
    answer: Answer = "goals"

    def __post_init__(self) -> None:
        """Raises `InputError`."""
        if not MIN_SPACING_US <= self.step_s / MICRO <= MAX_SPACING_US or not 2 <= self.horizon < MAX_KNOTS:
            raise InputError(
                f"step_s {self.step_s}, horizon {self.horizon}: give {MIN_SPACING_US * MICRO} to "
                f"{MAX_SPACING_US * MICRO} s and 2 to {MAX_KNOTS - 1} steps"
            )
        if self.answer not in get_args(Answer):
            raise InputError(f"answer '{self.answer}': give one of {', '.join(get_args(Answer))}")


@runtime_checkable
class Runnable(Protocol):
    """A policy that has not been started. `error` is what somebody else's code raised during the run."""

    @property
    def shape(self) -> ChunkShape: ...

    @property
    def cameras(self) -> tuple[CameraSpec, ...]: ...

    def views(self, urls: Sequence[str]) -> tuple[CameraView, ...]:
        """What it sees through the cameras with these URLs."""

    @property
    def step_s(self) -> float: ...

    @property
    def execute_steps(self) -> int: ...

    @property
    def bundle(self) -> Bundle | None: ...

    @property
    def error(self) -> Exception | None: ...

    def open(self, client: DeviceClient, run: RunSettings, display: Display) -> InferenceHandle:
        """Starts it. Raises `InputError`."""


class BundleRun:
    """A bundle on an arm it was made for. Raises `VlaEdgeError` for what can be known to be wrong before the start."""

    error: Exception | None = None

    def __init__(self, bundle: Bundle, arm: ArmProfile, run: RunSettings) -> None:
        self.shape, self.cameras, self.bundle, self._arm = bundle.manifest.shape, bundle.manifest.cameras, bundle, arm
        self.step_s = bundle.arm(arm.embodiment, arm.joints).step_s
        self.execute_steps = bundle.manifest.policy.execute
        check_policy(bundle, arm, run.task, run.threads, run.engine)

    def views(self, urls: Sequence[str]) -> tuple[CameraView, ...]:
        return tuple(CameraView(spec.name, spec.frame_px) for spec in self.cameras)

    def open(self, client: DeviceClient, run: RunSettings, display: Display) -> InferenceHandle:
        settings = replace(run, bundle=str(self.bundle.path), manifest_sha256=self.bundle.manifest_sha256)
        return InferenceProcess(self.bundle, self._arm, settings, display.tap, display.outlets)


class FunctionRun:
    """A Python function; see `PolicyFunction`. `ready` says whether it can be called without a long wait."""

    bundle: Bundle | None = None
    cameras: tuple[CameraSpec, ...] = ()

    def __init__(
        self,
        function: PolicyFunction,
        arm: ArmProfile,
        settings: FunctionSettings,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self.shape, self.step_s = chunk_shape(settings.horizon), settings.step_s
        self.execute_steps = min(EXECUTE_STEPS, settings.horizon - 1)
        self._function, self._arm, self._settings, self._ready = function, arm, settings, ready
        self._policy: FunctionPolicy | None = None

    @property
    def error(self) -> Exception | None:
        return self._policy.error if self._policy is not None else None

    def views(self, urls: Sequence[str]) -> tuple[CameraView, ...]:
        return tuple(CameraView(str(number), FRAME_PX) for number in range(1, len(urls) + 1))

    def open(self, client: DeviceClient, run: RunSettings, display: Display) -> InferenceHandle:
        horizon, answer = self._settings.horizon, self._settings.answer
        policy = FunctionPolicy(self._function, self._arm.dof, horizon, answer, lambda: client.last_state)
        self._policy = policy
        sinks, views = display.outlets.sinks, self.views(run.cameras)
        with ExitStack() as stack:
            cameras = [
                stack.enter_context(closing(open_camera(url, view.frame_px, view.name, on_frame=told(sinks, number))))
                for number, (url, view) in enumerate(zip(run.cameras, views))
            ]
            # Another clock than the link's, which is the journal's.
            inference = Inference(policy, cameras, run.seed, time.monotonic_ns, sinks)
            return InferenceThread(inference, self.step_s, run.cpus, display.tap, self._ready, stack.pop_all())


def runnable(
    policy: Bundle | str | Path | PolicyFunction | Runnable,
    arm: ArmProfile,
    run: RunSettings,
    function: FunctionSettings,
) -> Runnable:
    """What `policy` is, checked before anything is opened. Raises `VlaEdgeError`."""
    if isinstance(policy, Runnable):
        made = policy
    elif callable(policy):
        made = FunctionRun(policy, arm, function)
    else:
        made = BundleRun(policy if isinstance(policy, Bundle) else load_bundle(Path(policy)), arm, run)
    most = made.shape.horizon - 1
    execute = made.execute_steps if run.execute_steps is None else run.execute_steps
    if not 1 <= execute <= most:
        raise InputError(f"--execute {execute}: a chunk has {most + 1} steps, execute 1 to {most}")
    if not 1 <= run.ensemble <= MOST_CHUNKS:
        raise InputError(f"--ensemble {run.ensemble}: 1 to {MOST_CHUNKS} chunks are averaged")
    if run.ensemble > 1 and not made.shape.measured:
        raise InputError("--ensemble averages goals, and this policy gives increments; leave it out")
    return made


def described(bundle: Bundle | None) -> dict[str, Any] | None:
    """A bundle in a report."""
    if bundle is None:
        return None
    return {"checkpoint_sha256": bundle.manifest.checkpoint_sha256, "precision": bundle.manifest.precision}
