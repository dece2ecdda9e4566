"""Logs as episodes of a LeRobot v3 dataset: the arm at the dataset's rate, the frames nearest before, and the marks.

An episode is what lies between two ways home. Pauses are left out, as in LeRobot's own recordings with corrections, and
steps in which a person had the arm are marked in the column `intervention`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError
from edge.log.dataset import Camera, Column, DatasetSpec, DatasetWriter, Flag, Vector
from edge.log.logged_run import Hands, LoggedRun, Motion, grippers_of
from edge.log.mcap_log import LogError
from edge.log.pictures import LoggedFrame, decoded, passing_frames
from edge.plan.trajectory import FloatArray
from firmware_bridge.reading import told

STATE, ACTION, INTERVENTION = "observation.state", "action", "intervention"
SUCCESS, DONE = "next.success", "next.done"
IMAGES = "observation.images."
MAPPING = Path("meta") / "vla_edge_mapping.toml"
"""What `edge-train` reads the columns by."""
RATES = (30, 20, 10)
"""Frames per second that go into a step of 100 ms."""
STALE_NS = 500_000_000
"""An older frame is not what the arm acted on: the step is left out."""
JOINT_SLOTS = 7
"""Of one arm."""
WHOLE_BODY = 16
"""The first slot of the states of more than one."""
Verdict = Literal["success", "fail", "unknown"]


class NoEpisode(InputError):
    """A log that gives no episode; the message names it and why."""


@dataclass(frozen=True)
class Steps:
    """The steps of an episode: `host_ns` (n,), positions (n, J), and in whose hands the arm was (n,)."""

    host_ns: NDArray[np.int64]
    measured_rad: FloatArray
    commanded_rad: FloatArray
    by_leader: NDArray[np.bool_]

    def kept(self, rows: NDArray[np.bool_]) -> Steps:
        return Steps(self.host_ns[rows], self.measured_rad[rows], self.commanded_rad[rows], self.by_leader[rows])


@dataclass
class Appended:
    """What became of a log: the numbers of its episodes, and the steps left out for want of a frame."""

    episodes: list[int] = field(default_factory=list)
    steps: int = 0
    by_leader: int = 0
    without_frame: int = 0


def rate_of(run: LoggedRun) -> int:
    """Frames per second that suit a log: the most of `RATES` that its slowest camera has."""
    periods_s = [np.median(np.diff(times)) / 1e9 for times in run.seen_ns.values() if len(times) > 2]
    slowest = 1 / max(periods_s) if periods_s else RATES[0]
    return next((rate for rate in RATES if rate <= 1.1 * slowest), RATES[-1])


def spec_of(run: LoggedRun, fps: int) -> DatasetSpec:
    """The columns of a log's episodes."""
    names = Vector(tuple(f"{joint}.pos_{unit}" for joint, unit in zip(run.arm["joints"], run.arm["units"])))
    columns: dict[str, Column] = {STATE: names, ACTION: names}
    columns |= {IMAGES + name: Camera(*size) for name, size in run.sizes_px.items() if name in run.seen_ns}
    columns |= {INTERVENTION: Flag(), SUCCESS: Flag(), DONE: Flag()}
    return DatasetSpec(fps, str(run.arm["embodiment"]), columns)


def append_run(
    writer: DatasetWriter, run: LoggedRun, verdict: Verdict, task: str | None = None, remark: str = ""
) -> Appended:
    """Appends the episodes of a log; each is on disk before the next one begins. Raises `InputError`."""
    found = Appended()
    cameras = [name.removeprefix(IMAGES) for name in writer.spec.cameras]
    missing = [name for name in cameras if name not in run.seen_ns]
    if missing:
        raise NoEpisode(f"{run.path}: has no frames of the camera '{missing[0]}', which the dataset has")
    episodes = [steps for motions in _between_ways_home(run) if (steps := _steps(run, motions, writer.spec.fps))]
    with tempfile.TemporaryFile() as spool:
        for steps in episodes:
            seen = {name: _frames_at(run.seen_ns[name], steps.host_ns) for name in cameras}
            fresh = np.all([steps.host_ns - at < STALE_NS for at in seen.values()], axis=0) if seen else None
            found.without_frame += 0 if fresh is None else int(np.count_nonzero(~fresh))
            if fresh is not None:
                steps, seen = steps.kept(fresh), {name: at[fresh] for name, at in seen.items()}
            if len(steps.host_ns) < 2:
                continue
            film = _spooled(run, {name: set(at.tolist()) for name, at in seen.items()}, spool)
            columns = _columns(steps, verdict == "success")
            for name, at in seen.items():
                columns[IMAGES + name] = StoredFrames(
                    spool, [film[name, one] for one in at.tolist()], run.sizes_px[name]
                )
            number = writer.episodes
            about = {"log": run.path.name, "started_ns": run.started_ns, "verdict": verdict, "episode": number}
            writer.add_episode(columns, run.task if task is None else task)
            by_leader = int(steps.by_leader.sum())
            told = {**about, "by_leader": by_leader, **({"remark": remark} if remark else {})}
            writer.remarks["episodes"] = [*writer.remarks.get("episodes", []), told]
            writer.flush()
            found.episodes.append(number)
            found.steps += len(steps.host_ns)
            found.by_leader += by_leader
    if not found.episodes:
        raise NoEpisode(f"{run.path}: no motion of at least two steps with frames; record a longer run")
    return found


def is_in(writer: DatasetWriter, run: LoggedRun) -> list[int]:
    """The numbers of the episodes that a dataset has of a run already."""
    told = writer.remarks.get("episodes", [])
    return [
        one["episode"] for one in told if one.get("started_ns") == run.started_ns and one.get("log") == run.path.name
    ]


def write_mapping(folder: Path, run: LoggedRun) -> None:
    """Writes what the columns mean, for `edge-train`; not for an arm with more axes than a policy has slots."""
    arm = run.arm
    groups = _groups(arm["units"], grippers_of(arm))
    if not groups:
        return
    step_ms = round(1000 * float(run.made_from["step_s"]))
    step_ms = step_ms if step_ms >= 100 else 100
    lines = [
        "# Positions measured and commanded, as edge-record wrote them: what edge-train reads this dataset by.",
        "[embodiment]",
        f'name = "{arm["embodiment"]}"',
        f'robots = ["{arm["embodiment"]}"]',
        f"step_ms = {step_ms}",
        f"joints = {_quoted(arm['joints'][axis] for axes, _, _ in groups for axis in axes)}",
    ]
    for axes, state, action in groups:
        names, unit = _quoted(f"{arm['joints'][axis]}.pos_{arm['units'][axis]}" for axis in axes), arm["units"][axes[0]]
        lines += ["", "[[state]]", f'column = "{STATE}"', f"elements = {names}", f"slots = {state}", f'unit = "{unit}"']
        lines += ["", "[[action]]", f'column = "{ACTION}"', f"elements = {names}", 'kind = "position"']
        lines += [f"slots = {action}", f'unit = "{unit}"']
        lines += [f'before.column = "{STATE}"', f"before.elements = {names}"]
    (folder / MAPPING).parent.mkdir(parents=True, exist_ok=True)
    (folder / MAPPING).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _groups(units: Sequence[str], grippers: Sequence[int]) -> list[tuple[list[int], list[int], list[int]]]:
    """Axes of one unit, with their slots of states and of actions (docs/howto/data.md); nothing where there is no room
    for them. Two grippers are of two arms alike, one behind the other."""
    axes, each = range(len(units)), len(units) // 2
    if len(grippers) == 2 and each <= JOINT_SLOTS:
        action = [*range(each), *range(JOINT_SLOTS, JOINT_SLOTS + each)]
        alike = [[axis for axis in axes if units[axis] == unit] for unit in dict.fromkeys(units)]
        return [(own, [WHOLE_BODY + axis for axis in own], [action[axis] for axis in own]) for own in alike]
    turning = [axis for axis in axes if axis not in grippers]
    if len(grippers) > 1 or len(turning) > JOINT_SLOTS:
        return []
    joints = (turning, [8 + at for at in range(len(turning))], [29 + at for at in range(len(turning))])
    return [joints, *([(list(grippers), [15], [36])] if grippers else [])]


def _quoted(names: Any) -> str:
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


class StoredFrames:
    """The frames of an episode, decoded one at a time from image files that lie in a file."""

    def __init__(self, file: IO[bytes], places: Sequence[tuple[int, int]], size_px: tuple[int, int]) -> None:
        self._file, self._places = file, places
        self.shape, self.dtype = (len(places), *size_px, 3), np.dtype(np.uint8)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, step: int, /) -> NDArray[np.uint8]:
        at, size = self._places[step]
        self._file.seek(at)
        try:
            pixels = decoded(self._file.read(size))
        except ValueError as error:
            raise LogError(f"a frame of the log: {told(error)}") from None
        if pixels.shape != self.shape[1:]:
            raise LogError(f"a frame of the log is {pixels.shape[1]}x{pixels.shape[0]}, not as its head says")
        return pixels

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self[step] for step in range(len(self)))


def _between_ways_home(run: LoggedRun) -> Iterator[list[Motion]]:
    """The motions of each episode."""
    episode: list[Motion] = []
    for motion in run.motions:
        if motion.hands is Hands.HOMING:
            if episode:
                yield episode
            episode = []
        else:
            episode.append(motion)
    if episode:
        yield episode


def _steps(run: LoggedRun, motions: Sequence[Motion], fps: int) -> Steps | None:
    """The steps of an episode. The action of a step is where the commanded position has come to at its end."""
    period_ns = 1e9 / fps
    parts: list[Steps] = []
    for motion in motions:
        times = run.host_ns[motion.rows]
        count = int((times[-1] - times[0]) // period_ns)
        if count < 1:
            continue
        at_ns = times[0] + np.round(np.arange(count) * period_ns).astype(np.int64)
        measured = _interpolated(at_ns, times, run.measured_rad[motion.rows])
        commanded = _interpolated(at_ns + round(period_ns), times, run.commanded_rad[motion.rows])
        parts.append(Steps(at_ns, measured, commanded, np.full(count, motion.hands is Hands.LEADER)))
    if not parts:
        return None
    joined = (
        [getattr(part, name) for part in parts] for name in ("host_ns", "measured_rad", "commanded_rad", "by_leader")
    )
    return Steps(*(np.concatenate(columns) for columns in joined))


def _interpolated(at_ns: NDArray[np.int64], times_ns: NDArray[np.int64], rows: FloatArray) -> FloatArray:
    since = times_ns[0]
    columns = [np.interp(at_ns - since, times_ns - since, column) for column in rows.T]
    return np.stack(columns, axis=1)


def _frames_at(seen_ns: NDArray[np.int64], at_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """When the newest frame of each moment was captured; of a moment before the first frame, the first."""
    return seen_ns[np.maximum(np.searchsorted(seen_ns, at_ns, side="right") - 1, 0)]


def _spooled(
    run: LoggedRun, wanted: Mapping[str, set[int]], spool: IO[bytes]
) -> dict[tuple[str, int], tuple[int, int]]:
    """Copies the image files of these frames, by camera and time of capture, to the spool; returns where they lie."""
    places: dict[tuple[str, int], tuple[int, int]] = {}
    spool.seek(0)

    def name_of(frame: LoggedFrame) -> str:
        return run.called.get(frame.camera, frame.camera)

    for frame in passing_frames(run.path, lambda frame: frame.host_ns in wanted.get(name_of(frame), ()), "png"):
        places[name_of(frame), frame.host_ns] = (spool.tell(), len(frame.data))
        spool.write(frame.data)
    spool.flush()
    return places


def _columns(steps: Steps, success: bool) -> dict[str, Any]:
    done = np.zeros((len(steps.host_ns), 1), np.bool_)
    done[-1] = True
    return {
        STATE: steps.measured_rad,
        ACTION: steps.commanded_rad,
        INTERVENTION: steps.by_leader[:, None],
        SUCCESS: done & success,
        DONE: done,
    }
