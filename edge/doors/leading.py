"""A leader arm as the source of a run's set-points: a process of its own reads it, and control pursues the newest pose.

All limits are those of any other run. The arm goes to where the leader is slowly, until it has been there once. A
leader that is lost ends the run as lost inference does: what is committed is executed, and the arm comes to rest.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import time
from collections.abc import Callable
from types import TracebackType

from edge.arms import ArmProfile
from edge.doors.following import FollowingRecords
from edge.doors.following_process import SHAPE, STEP_S, FollowingRun
from edge.errors import InputError
from edge.inference.records import Outcome, Planner
from edge.plan.trajectory import FloatArray
from edge.run.pursuit import Pursuer, Pursuit
from firmware_bridge.children import end, start_module

READY_TIMEOUT_S = 20.0
END_TIMEOUT_S = 5.0
LOST_S = 0.4
"""Ours: a pose this old leads nobody. A leader is read 100 times a second, and says by itself when it is lost."""
APPROACH_SHARE = 0.15
"""Of the operating speed, until the arm has been where the leader is (ours)."""


class LeaderProcess:
    """The process that reads the leader at `url` for `arm`; for a `with`. Raises `InputError` when it cannot lead."""

    def __init__(self, arm: ArmProfile, name: str, url: str) -> None:
        self.records, self._why = FollowingRecords(arm.dof), ""
        descriptor = self.records.memory.descriptor
        self._process = start_module(
            "edge.doors.leading_process",
            ["--memory", str(descriptor), "--arm", name, "--leader", url],
            end=signal.SIGTERM,
            pass_fds=[descriptor],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], READY_TIMEOUT_S)[0]:
            self.close()
            raise InputError(f"the leader at {url} does not answer; is it on, and at this address?")
        told = json.loads(self._process.stdout.readline() or '{"error": "it ended"}')
        if "error" in told:
            self.close()
            raise InputError(f"--leader: {told['error']}")

    def lost(self) -> str | None:
        """Why there is no leader any more; None while it is read."""
        if not self._why and self._process.poll() is not None:
            assert self._process.stdout is not None
            said = self._process.stdout.readline()
            self._why = str(json.loads(said)["error"]) if said else "the leader's process has ended"
        return self._why or None

    def close(self) -> None:
        """Ends the process; the leader stays as it is."""
        end(self._process, END_TIMEOUT_S)

    def __enter__(self) -> LeaderProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LeadingRun(FollowingRun):
    """A run whose set-points are where the leader is. `lost` says why there is none, or None."""

    def __init__(
        self,
        arm: ArmProfile,
        records: FollowingRecords,
        lost: Callable[[], str | None],
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        super().__init__(arm, 1.0, records)
        self._lost, self._clock_ns = lost, clock_ns
        self._told_ns = clock_ns()
        approach = Pursuit.of(arm, STEP_S, APPROACH_SHARE)
        self.planner: Planner = Pursuer(Pursuit.of(arm, STEP_S), SHAPE.horizon, self._take, Outcome.LEADER, approach)

    def _take(self) -> FloatArray | None:
        newest = self._newest.take()
        if newest is not None:
            self._target, self._told_ns = newest.q, newest.at_ns
        return self._target

    def exit_reason(self) -> str | None:
        """Why the leader is lost; the arm then comes to rest."""
        self._take()
        age_s = (self._clock_ns() - self._told_ns) / 1e9
        why = self._lost() or (f"its last pose is {age_s:.2f} s old" if age_s > LOST_S else None)
        return None if why is None else f"the leader is lost: {why}"
