"""What a log holds of a run beside its frames: where the arm was and was meant to be, and who had it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.inference.records import Outcome, PlanResult
from edge.log.mcap_log import LogError, LogReader
from edge.log.pictures import USED, Whole, frame_of
from edge.log.records import Kind, Mapping, Record, Sample, unpack
from edge.plan.trajectory import FloatArray, from_micro
from firmware_bridge.codes import DeviceState
from firmware_bridge.reading import Name, ReadError, told, typed

BREAK_NS = 60_000_000
"""Without a report for longer, a motion counts as two: reports come every 10 ms."""


class Hands(IntEnum):
    """Who has the arm."""

    POLICY = 0
    LEADER = 1
    """A person, through a leader arm."""
    HOMING = 2


HANDS = {Outcome.CHUNK: Hands.POLICY, Outcome.LEADER: Hands.LEADER, Outcome.HOMING: Hands.HOMING}


@dataclass(frozen=True)
class Motion:
    """The reports (first to last, as a slice) during which the arm followed a plan without a break."""

    rows: slice
    hands: Hands


@dataclass(frozen=True)
class LoggedRun:
    """A run from its log. `host_ns` (n,) is when each report was made, by the host's clock; J axes.

    seen_ns  of each camera, by name: when its frames were captured
    """

    path: Path
    header: dict[str, Any]
    made_from: dict[str, Any]
    host_ns: NDArray[np.int64]
    commanded_rad: FloatArray
    measured_rad: FloatArray
    motions: tuple[Motion, ...]
    seen_ns: dict[str, NDArray[np.int64]]
    report: dict[str, Any] = field(default_factory=dict)
    called: dict[str, str] = field(default_factory=dict)
    """What cameras are called here, by their names in the log, where that differs."""

    def renamed(self, names: Sequence[str]) -> LoggedRun:
        """The run with its cameras called so, in the policy's order. Raises `LogError` unless each has one name."""
        cameras = self.header.get("cameras", [])
        if len(names) != len(cameras) or len(set(names)) < len(names):
            raise LogError(
                f"{self.path}: saw through {len(cameras)} cameras, {', '.join(one['name'] for one in cameras)}; give "
                "each a name of its own"
            )
        called = {one["name"]: name for one, name in zip(cameras, names)}
        header = self.header | {"cameras": [{**one, "name": called[one["name"]]} for one in cameras]}
        seen_ns = {called[name]: seen for name, seen in self.seen_ns.items()}
        return replace(self, header=header, seen_ns=seen_ns, called=called)

    @property
    def started_ns(self) -> int:
        """Unix time of the run's first record: which run it is."""
        return int(self.header["anchor"]["wall_ns"])

    @property
    def arm(self) -> dict[str, Any]:
        """The profile that the run's controller was made from, as plain data."""
        return dict(self.made_from["arm"])

    @property
    def task(self) -> str:
        return str(self.header.get("settings", {}).get("task", ""))

    @property
    def sizes_px(self) -> dict[str, tuple[int, int]]:
        """Height and width of each camera's frames, by name."""
        return {one["name"]: (one["height_px"], one["width_px"]) for one in self.header.get("cameras", [])}


def read_run(path: Path) -> LoggedRun:
    """Reads a log, but not the pixels of its frames. Raises `LogError`."""
    seen: dict[str, list[int]] = {}

    def note(topic: str, data: bytes) -> None:
        if topic.endswith(USED):
            return
        try:
            frame = frame_of(topic, data)
        except ValueError as error:
            raise LogError(f"{path}: a message of {topic}: {error}; record the run again") from None
        assert frame is not None  # by its topic
        seen.setdefault(frame.camera, []).append(frame.host_ns)

    found = _Reading()
    for record in LogReader(path).records(note):
        try:
            found.take(record)
        except (ValueError, TypeError, LookupError) as error:
            raise LogError(f"{path}: record {record.number} is damaged: {told(error)}") from None
    if not found.header or not found.made_from or not found.rows:
        raise LogError(f"{path}: holds no motion; record a run with --log that gets as far as moving")
    times, hands, states = (np.array(column) for column in zip(*found.marks))
    run = LoggedRun(
        path,
        found.header,
        found.made_from,
        times.astype(np.int64),
        from_micro(np.array([row[0] for row in found.rows])),
        from_micro(np.array([row[1] for row in found.rows])),
        tuple(_motions(times, hands, states)),
        {name: np.sort(np.array(one, np.int64)) for name, one in seen.items()},
        found.report,
    )
    _check(run)
    return run


class _Reading:
    """Takes the records of a log one after the other."""

    def __init__(self) -> None:
        self.header: dict[str, Any] = {}
        self.made_from: dict[str, Any] = {}
        self.report: dict[str, Any] = {}
        self.rows: list[tuple[Sequence[int], Sequence[int]]] = []
        self.marks: list[tuple[int, int, int]] = []
        self._clock: Mapping | None = None
        self._hands = Hands.POLICY

    def take(self, record: Record) -> None:
        if record.kind not in TAKEN:
            return
        body = unpack(record.kind, record.body)
        if record.kind is Kind.HEADER:
            self.header = body
        elif record.kind is Kind.CONTROLLER:
            self.made_from = body
        elif record.kind is Kind.ENDED:
            self.report = body
        elif isinstance(body, Mapping):
            self._clock = body
        elif isinstance(body, PlanResult):
            self._hands = HANDS.get(body.outcome, self._hands)
        elif isinstance(body, Sample):
            self.rows.append((body.commanded_urad, body.measured_urad))
            self.marks.append((self._host_ns(body, record.host_ns), self._hands, body.state))

    def _host_ns(self, sample: Sample, taken_ns: int) -> int:
        """When the report was made, which is a little before it was read."""
        if self._clock is None:
            return taken_ns
        since_us = (sample.device_us - self._clock.device_us) / (1 + self._clock.drift)
        return self._clock.at_ns + round(1000 * since_us)


TAKEN = frozenset({Kind.HEADER, Kind.CONTROLLER, Kind.ENDED, Kind.MAPPING, Kind.RESULT, Kind.SAMPLE})


def _motions(times_ns: NDArray[Any], hands: NDArray[Any], states: NDArray[Any]) -> Iterator[Motion]:
    """The stretches in which the device followed a plan, each in one pair of hands."""
    moving = states == DeviceState.STREAMING
    cut = (np.diff(times_ns) > BREAK_NS) | (np.diff(hands) != 0) | (np.diff(moving) != 0) | (np.diff(times_ns) <= 0)
    edges = [0, *(np.flatnonzero(cut) + 1), len(times_ns)]
    for begin, end in pairwise(edges):
        if moving[begin] and end - begin > 1:
            yield Motion(slice(int(begin), int(end)), Hands(int(hands[begin])))


def _check(run: LoggedRun) -> None:
    """Raises `LogError` unless the parts that everybody asks for are there."""
    try:
        typed(Whole, run.header["anchor"]["wall_ns"])
        for name in ("joints", "units"):
            found = typed(tuple[Name, ...], run.arm[name])
            if len(found) != run.commanded_rad.shape[1]:
                raise ReadError(f"{name} are {len(found)}, and reports have {run.commanded_rad.shape[1]}")
        for camera in run.header.get("cameras", []):
            typed(Name, camera["name"]), typed(int, camera["height_px"]), typed(int, camera["width_px"])
    except (ReadError, LookupError, TypeError) as error:
        raise LogError(f"{run.path}: the head of the log: {error}; record the run again") from None


def grippers_of(arm: dict[str, Any]) -> tuple[int, ...]:
    """The axes that hold things, of an arm in such a record."""
    told = arm.get("gripper")
    return () if told is None else (told,) if isinstance(told, int) else tuple(told)
