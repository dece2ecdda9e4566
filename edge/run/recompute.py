"""Computes a logged run's chunks again, from the logged pixels through a bundle's engines, and compares each of them.

With the replay of the decisions this leads from the pixels to the motor. On the machine and engine of the run a chunk
must be the same to the last bit; on another one it must agree as engines must (`gate_of`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge.arms import ArmProfile, load_arm
from edge.bundle import VERIFICATION, Bundle
from edge.errors import InputError, VlaEdgeError
from edge.inference.process import policy_input
from edge.inference.records import Outcome, PlanRequest, PlanResult
from edge.log.mcap_log import LogError, LogReader
from edge.log.pictures import LoggedFrame, frame_of
from edge.log.records import Kind, unpack
from edge.policy.base import BundlePolicy, open_policy
from edge.run.report import this_machine
from firmware_bridge.reading import Name, ReadError, one_line, told, typed

FP32_GATE, OTHER_GATE = 1e-3, 0.05
"""Relative RMS of a chunk that another engine or processor computed: of FP32, and of other precisions where the
bundle's verification says nothing."""
STILL_RAD = 1e-4
"""A motion below this has no direction to agree on."""
MOST_WAITING = 4096
"""Requests without an answer, or frames without a request: far more than a run has at any time."""


@dataclass(frozen=True)
class Difference:
    """The first chunk that differs, or the first frame that is not what was logged."""

    at_s: float
    request: int
    text: str


@dataclass
class Recomputed:
    """What was found. `identical` of the `compared` chunks are the same to the last bit."""

    compared: int = 0
    identical: int = 0
    frames: int = 0
    without_frames: list[int] = field(default_factory=list)
    """Chunks whose frames are not all in the log."""
    largest_rad: float = 0.0
    largest_share: float = 0.0
    """Relative RMS of the chunk that differs most."""
    same: bool = True
    """Whether machine, engine and bundle are those of the run, to the last file: then every bit counts."""
    gate: float = 0.0
    wrong: Difference | None = None
    """What no rounding explains: a frame that is not the one that was logged, a chunk of another shape."""
    rounded: Difference | None = None
    """The first chunk that is not the same to the last bit."""
    beyond: Difference | None = None
    """The first chunk that is beyond the gate."""

    @property
    def difference(self) -> Difference | None:
        """The first that counts."""
        apart = [one for one in (self.wrong, self.rounded if self.same else self.beyond) if one is not None]
        return min(apart, key=lambda one: one.at_s, default=None)


@dataclass
class _Waiting:
    """A chunk of which not everything has been read yet."""

    request: PlanRequest
    at_ns: int
    result: PlanResult | None = None


class Recomputation:
    """Reads a log once, and computes each chunk as soon as all of it is there."""

    def __init__(self, bundle: Bundle, engine: str, threads: int, arm: str | None = None) -> None:
        self.bundle, self.found = bundle, Recomputed()
        self.policy: BundlePolicy | None = None
        self.header: dict[str, Any] = {}
        self._engine, self._threads, self._arm_name = engine, threads, arm
        self._requests: dict[int, _Waiting] = {}
        self._frames: dict[int, dict[tuple[str, int], LoggedFrame]] = {}
        self._cameras: list[str] = []
        self._seed, self._first_ns = 0, 0

    def run(self, path: Path) -> Recomputed:
        """Raises `LogError`, and `InputError` for a bundle that is not the run's."""
        for record in LogReader(path).records(self._take_frame):
            try:
                body = unpack(record.kind, record.body)
            except (ValueError, TypeError) as error:
                raise LogError(f"{path}: record {record.number} is damaged: {told(error)}") from None
            if record.kind is Kind.HEADER:
                self._begin(path, body)
                self._first_ns = record.host_ns
            elif self.policy is None:
                raise LogError(f"{path}: does not begin with a header; record the run again")
            elif isinstance(body, PlanRequest):
                self._requests[body.id] = _Waiting(body, record.host_ns)
            elif isinstance(body, PlanResult) and (waiting := self._requests.get(body.id)) is not None:
                if body.outcome is Outcome.CHUNK:
                    waiting.result = body
                    self._compute(body.id)
                else:
                    del self._requests[body.id]
            elif record.kind is Kind.ENDED and isinstance(body.get("runs_on"), str):
                self._ran_on(body["runs_on"])
            self._forget()
        if self.policy is None:
            raise LogError(f"{path}: holds no run")
        self.found.without_frames += [number for number, waiting in self._requests.items() if waiting.result]
        return self.found

    def _begin(self, path: Path, header: dict[str, Any]) -> None:
        try:
            settings, of_bundle = typed(dict[Name, Any], header.get("settings")), header.get("bundle")
            task, self._seed = typed(str, settings.get("task")), typed(int, settings.get("seed"))
            name = self._arm_name or typed(str, settings.get("arm"))
            arm = load_arm(name)
            of_arm = typed(dict[Name, Any], header.get("arm"))
            cameras = [typed(dict[Name, Any], one) for one in typed(tuple[Any, ...], header.get("cameras"))]
            self._cameras = [typed(Name, one.get("name")) for one in cameras]
        except ReadError as error:
            raise LogError(f"{path}: the header {error}; a log without frames cannot be computed again") from None
        self._check(path, arm, of_arm, of_bundle)
        self.header = header
        self.policy = open_policy(self.bundle, name, task, self._threads, self._engine)
        if [spec.name for spec in self.policy.cameras] != self._cameras:
            raise InputError(f"{path}: saw through {', '.join(self._cameras)}; give the bundle of that run")
        self.found.gate = gate_of(self.bundle)
        self.found.same &= header.get("machine") == this_machine()
        runs_on = header.get("runs_on")
        if isinstance(runs_on, list):
            self._ran_on(", ".join(sorted({str(one) for one in runs_on})))

    def _check(self, path: Path, arm: ArmProfile, of_arm: dict[str, Any], of_bundle: Any) -> None:
        """Raises `InputError` unless arm and bundle are those of the run."""
        if f"{arm.hash32:08x}" != of_arm.get("profile"):
            raise InputError(
                f"{path}: the arm '{arm.name}' has another profile than in that run; give that one with --arm"
            )
        if not isinstance(of_bundle, dict):
            raise InputError(f"{path}: no bundle drove that run, so there are no engines to compute it again with")
        manifest = self.bundle.manifest
        if of_bundle.get("checkpoint_sha256") != manifest.checkpoint_sha256:
            was, found = str(of_bundle.get("checkpoint_sha256"))[:12], manifest.checkpoint_sha256[:12]
            raise InputError(
                f"{path}: was driven by checkpoint {was}, {self.bundle.path} is of {found}; give that bundle"
            )
        self.found.same = of_bundle.get("files") == dict(manifest.files)

    def _ran_on(self, text: str) -> None:
        """What ran the engines then, in words."""
        assert self.policy is not None
        here = ", ".join(sorted(set(self.policy.describe())))
        self.found.same &= here == text

    def _take_frame(self, topic: str, data: bytes) -> None:
        if not topic.endswith("/used"):
            return
        try:
            frame = frame_of(topic, data)
        except ValueError as error:
            raise LogError(f"a message of {topic}: {error}; record the run again") from None
        if frame is None:
            return
        self._frames.setdefault(frame.request, {})[frame.camera, frame.part] = frame
        self._compute(frame.request)

    def _compute(self, number: int) -> None:
        """Compares a chunk, if all of it has been read."""
        waiting, frames = self._requests.get(number), self._frames.get(number, {})
        if waiting is None or waiting.result is None or self.policy is None:
            return
        parts = self.policy.observations
        wanted = [[frames.get((camera, part)) for part in range(parts)] for camera in self._cameras]
        if any(frame is None for of_camera in wanted for frame in of_camera):
            return
        del self._requests[number]
        self._frames.pop(number, None)
        at_s = (waiting.at_ns - self._first_ns) / 1e9
        pixels = []
        for of_camera in wanted:
            seen = []
            for frame in of_camera:
                assert frame is not None
                try:
                    seen.append(frame.pixels())
                except ValueError as error:
                    text = f"camera {frame.camera}, its frame {frame.sequence}: {error}"
                    self._wrong(Difference(at_s, number, text))
                    return
            pixels.append(seen[0] if parts == 1 else np.stack(seen))
        self.found.frames += parts * len(pixels)
        self._compare(waiting, pixels, at_s)

    def _compare(self, waiting: _Waiting, pixels: list[Any], at_s: float) -> None:
        request, result, found = waiting.request, waiting.result, self.found
        assert self.policy is not None and result is not None
        try:
            output = self.policy.infer(policy_input(request, pixels, self._seed))
        except (VlaEdgeError, ValueError, RuntimeError) as error:
            self._wrong(Difference(at_s, request.id, f"was computed then, and fails now: {error}"))
            return
        logged, now = result.rows_rad, output.rows_rad
        found.compared += 1
        if logged.shape != now.shape:
            self._wrong(Difference(at_s, request.id, f"has the shape {logged.shape}, computed again {now.shape}"))
            return
        if np.array_equal(logged, now):
            found.identical += 1
            return
        apart = np.abs(logged - now)
        step, joint = np.unravel_index(int(np.argmax(np.nan_to_num(apart, nan=np.inf))), apart.shape)
        begin = 0.0 if len(result.increments_rad) else logged[:1]
        size = max(float(np.sqrt(np.mean((logged - begin) ** 2))), STILL_RAD)
        share = float(np.sqrt(np.mean((logged - now) ** 2))) / size
        found.largest_rad = max(found.largest_rad, float(apart.max()))
        found.largest_share = max(found.largest_share, share)
        value, other = float(logged[step, joint]), float(now[step, joint])
        text = f"step {step + 1}, joint {joint + 1}: {value!r} logged, {other!r} now; relative RMS {share:.1e}"
        difference = Difference(at_s, request.id, text)
        found.rounded = found.rounded or difference
        if not share <= found.gate:
            found.beyond = found.beyond or difference

    def _wrong(self, difference: Difference) -> None:
        self.found.wrong = self.found.wrong or difference

    def _forget(self) -> None:
        """Requests that nobody answered, and frames of answers that nobody took."""
        for waiting in (self._requests, self._frames):
            while len(waiting) > MOST_WAITING:
                waiting.pop(next(iter(waiting)))


def gate_of(bundle: Bundle) -> float:
    """The relative RMS within which another engine's chunks must agree."""
    if bundle.manifest.precision == "fp32":
        return FP32_GATE
    try:
        agreement = json.loads(bundle.file(VERIFICATION).read_text(encoding="utf-8"))["agreement"]
        return max(float(one["gate"].get("relative_rms", 0.0)) for one in agreement.values()) or OTHER_GATE
    except (OSError, ValueError, LookupError, TypeError, AttributeError, VlaEdgeError):
        return OTHER_GATE


def recompute_log(path: Path, bundle: Bundle, engine: str, threads: int, arm: str | None) -> int:
    """Computes the chunks of a log again and prints the result: 0 they agree, 1 one differs, 2 some could not be
    computed. Raises `VlaEdgeError`."""
    recomputation = Recomputation(bundle, engine, threads, arm)
    found = recomputation.run(path)
    print(table(found, recomputation))
    if found.difference is not None:
        return 1
    return 2 if found.without_frames or not found.compared else 0


def table(found: Recomputed, recomputation: Recomputation) -> str:
    """What was computed, and the first difference."""
    policy, bundle = recomputation.policy, recomputation.bundle
    assert policy is not None
    here = ", ".join(sorted(set(policy.describe())))
    rows = [
        ("recomputed", f"{found.compared} chunks from {found.frames} frames, by {bundle.path} on {here}"),
        ("  same", f"{found.identical} to the last bit"),
    ]
    if found.identical < found.compared:
        apart = f"{found.largest_rad:.1e} rad, relative RMS {found.largest_share:.1e}"
        rows.append(("  apart", f"at most {apart} (gate of another machine or engine: {found.gate:.0e})"))
    if found.without_frames:
        numbers = ", ".join(map(str, found.without_frames[:5]))
        rows.append(
            ("  missing", f"{len(found.without_frames)} chunks without all of their frames, from request {numbers}")
        )
    difference = found.difference
    if difference is not None:
        rows.append(("chunks", f"DIFFERENT, first that of request {difference.request}, at {difference.at_s:.3f} s"))
        rows.append(("", difference.text))
    elif not found.compared:
        rows.append(("chunks", "nothing to compare: the log holds no chunk of a policy with its frames"))
    elif found.identical == found.compared:
        rows.append(("chunks", "identical"))
    else:
        rows.append(("chunks", "agree, on another machine, engine or bundle than in the run"))
    return "\n".join(f"{name:<12} {one_line(text)}" for name, text in rows)
