"""A leader arm as the source of a run's set-points: a process of its own reads it, and control pursues the newest pose.

All limits are those of any other run. The arm goes to where the leader is slowly, until it has been there once. A
leader that is lost ends the run as lost inference does: what is committed is executed, and the arm comes to rest.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from edge.arms import ArmProfile
from edge.arms.drives import fitted_arm
from edge.bundle import CameraSpec
from edge.cameras import CameraError, split_name
from edge.doors.following import FollowingRecords
from edge.doors.following_process import SHAPE, STEP_S, FollowingRun
from edge.inference.film import CameraView
from edge.inference.filming import FilmProcess
from edge.inference.helper import Helper
from edge.inference.layout import Newest
from edge.inference.records import Outcome, Planner
from edge.inference.source import InferenceHandle
from edge.plan.trajectory import FloatArray
from edge.run.display import Display
from edge.run.pursuit import Pursuer, Pursuit
from edge.run.settings import RunSettings
from firmware_bridge.client import DeviceClient

READY_TIMEOUT_S = 20.0
FRAME_PX = (480, 640)
"""Height and width of what a run without a policy sees, unless it is told otherwise."""
FIRST_CAMERA = "front"
FOLLOWS = "the leader is read; '{}' goes to where it is slowly, then follows it"
LOST_S = 0.4
"""Ours: a pose this old leads nobody. A leader is read 100 times a second, and says by itself when it is lost."""
APPROACH_SHARE = 0.15
"""Of the operating speed, until the arm has been where the leader is (ours)."""


class LeaderProcess(Helper):
    """The process that reads the leader at `url` for `arm`; for a `with`. Raises `InputError` when it cannot lead."""

    def __init__(self, arm: ArmProfile, name: str, url: str) -> None:
        self.records = FollowingRecords(arm.dof)
        descriptor = self.records.memory.descriptor
        super().__init__(
            "edge.doors.leading_process",
            ["--memory", str(descriptor), "--arm", name, "--leader", url],
            [descriptor],
            READY_TIMEOUT_S,
            f"the leader at {url} does not answer; is it on, and at this address?",
        )
        self._arm = arm
        self.pose = LeaderPose(self.records)
        """Where it is, for a person who takes an arm over from a policy."""

    def run(self, bridge: str, cameras: Sequence[CameraSpec] = ()) -> LeadingRun:
        """A run of the arm at `bridge` that follows it from the beginning. Raises `InputError`."""
        return LeadingRun(fitted_arm(bridge, self._arm), self.records, self.lost, cameras)


def leading_cameras(given: Sequence[str], frame_px: tuple[int, int]) -> tuple[CameraSpec, ...]:
    """What a run without a policy sees, through `--camera [NAME=]URL`. Raises `CameraError`."""
    names = [split_name(text)[0] or (FIRST_CAMERA if len(given) == 1 else None) for text in given]
    if not names or None in names or len(set(names)) < len(names):
        raise CameraError("a recording needs a name for each camera that it sees through: --camera NAME=URL for each")
    return tuple(CameraSpec(name, *frame_px, fit="crop") for name in names if name)


class LeaderPose:
    """Where the leader is, for a person who takes an arm over; see `edge.run.take_over.Leader`."""

    def __init__(self, records: FollowingRecords, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._newest, self._clock_ns = Newest(records.set_points), clock_ns
        self._at_ns = 0
        self._pose: FloatArray | None = None

    def __call__(self) -> FloatArray | None:
        newest = self._newest.take()
        if newest is not None:
            self._at_ns, self._pose = newest.at_ns, newest.q
        return self._pose if self._clock_ns() - self._at_ns <= LOST_S * 1e9 else None


class LeadingRun(FollowingRun):
    """A run whose set-points are where the leader is. `lost` says why there is none, or None."""

    def __init__(
        self,
        arm: ArmProfile,
        records: FollowingRecords,
        lost: Callable[[], str | None],
        cameras: Sequence[CameraSpec] = (),
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__(arm, 1.0, records)
        self.cameras = tuple(cameras)
        self._lost, self._clock_ns = lost, clock_ns
        self._told_ns = clock_ns()
        self._film: FilmProcess | None = None
        approach = Pursuit.of(arm, STEP_S, APPROACH_SHARE)
        self.planner: Planner = Pursuer(Pursuit.of(arm, STEP_S), SHAPE.horizon, self._take, Outcome.LEADER, approach)

    def views(self, urls: Sequence[str]) -> tuple[CameraView, ...]:
        return tuple(CameraView(spec.name, spec.frame_px) for spec in self.cameras)

    def open(self, client: DeviceClient, run: RunSettings, display: Display) -> InferenceHandle:
        if self.cameras and display.outlets.sinks:
            self._film = FilmProcess(run.cameras, self.views(run.cameras), display.outlets)
        return super().open(client, run, display)

    def close(self) -> None:
        if self._film is not None:
            self._film.close()

    def _take(self) -> FloatArray | None:
        newest = self._newest.take()
        if newest is not None:
            self._target, self._told_ns = newest.q, newest.at_ns
        return self._target

    def exit_reason(self) -> str | None:
        """Why the leader, or a camera, is lost; the arm then comes to rest."""
        self._take()
        blind = self._film.lost() if self._film is not None else None
        if blind is not None:
            return blind
        age_s = (self._clock_ns() - self._told_ns) / 1e9
        why = self._lost() or (f"its last pose is {age_s:.2f} s old" if age_s > LOST_S else None)
        return None if why is None else f"the leader is lost: {why}"
