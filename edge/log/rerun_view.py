"""A log's messages as rerun shows them: pictures, links, curves, notices, tables, and words as text.

rerun's own reader of MCAP files knows messages in protobuf and of ROS 2; of ours, in JSON, it shows the bytes. So they
are handed to its SDK one by one: into a file that its viewer opens, or to a viewer that runs.
"""

from __future__ import annotations

import json
import math
from base64 import b64decode
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge.errors import InputError
from edge.inference.layout import parse_table
from edge.log.live import NOT_SHOWN
from edge.log.mcap_log import CAMERAS, LogError, LogReader
from edge.log.pictures import H264, USED
from edge.log.pictures import SCHEMA as PICTURE
from edge.log.topics import COMMON, ERROR, INFO, STAMPED, TOPICS, WARNING, schema_name
from firmware_bridge.reading import told
from firmware_bridge.registry import missing

if TYPE_CHECKING:
    from rerun import RecordingStream

TIMELINE = "message_log_time"
"""As rerun's own reader of MCAP files calls the time of a message."""
LINKS = "/tf"
LEVELS = {INFO: "INFO", WARNING: "WARN", ERROR: "ERROR"}
BESIDE = {*COMMON, *STAMPED}
"""Fields that say when; the timeline does."""
MOST_WORD = 80
"""Characters of a string in a line of text; the bytes of a frame are longer."""
MOST_LINE = 400
"""Characters of a line; what is longer is a document."""
AXIS_M = 0.03


def write_recording(log: Path, path: Path) -> int:
    """Writes a log as a recording of rerun's; returns how many messages it has.

    Raises `LogError` for a damaged log, `InputError` without the `rerun` extra or where there is no place for the file.
    """
    rerun = import_rerun("--rrd")
    seen = _seen_in(log)
    try:
        recording = rerun.RecordingStream("vla-edge")
        recording.save(path)
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(f"--rrd {path}: {error}") from None
    view = RerunView(recording, *seen)
    shown = 0
    for topic, wall_ns, data in LogReader(log).messages():
        try:
            shown += view.add(topic, data, wall_ns)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise LogError(f"{log}: a message of {topic} is damaged: {told(error)}; record the run again") from None
    recording.disconnect()  # writes what is left, and the end of the file
    return shown


def _seen_in(log: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The cameras of a log, and the frames in which the links of its arms stand. Raises `LogError`."""
    cameras: dict[str, None] = {}
    roots: tuple[str, ...] = ()
    for topic, _, data in LogReader(log).messages():
        if _is_passing(topic):
            cameras[topic] = None
        elif topic == LINKS and not roots:
            try:
                roots = tuple(dict.fromkeys(roots_of(parse_table(data)["transforms"]).values()))
            except (KeyError, TypeError, ValueError) as error:
                raise LogError(f"{log}: a message of {topic} is damaged: {told(error)}; record the run again") from None
    return tuple(cameras), roots


def _is_passing(topic: str) -> bool:
    return topic.startswith(CAMERAS) and not topic.endswith(USED)


def import_rerun(what: str) -> Any:
    """The SDK. Raises `InputError`."""
    try:
        import rerun
    except ImportError as error:
        raise InputError(missing(what, error)) from None
    return rerun


class RerunView:
    """Hands the messages of one log to a recording of rerun's; each topic is an entity of that name."""

    def __init__(self, recording: RecordingStream, cameras: Sequence[str] = (), roots: Sequence[str] = ()) -> None:
        import rerun

        self._rerun: Any = rerun
        self._recording: Any = recording
        self._cameras, self._roots = list(cameras), list(roots)
        self._known: set[str] = set()
        for timeline in ("log_time", "log_tick"):  # when it was handed over
            self._recording.disable_timeline(timeline)
        self._arrange()

    def add(self, topic: str, data: bytes, wall_ns: int) -> bool:
        """Whether a message, in JSON, is of a topic that is shown. Raises `ValueError`, `KeyError` or `TypeError`."""
        if topic in NOT_SHOWN or not (topic in TOPICS or topic.startswith(CAMERAS)):
            return False
        content = parse_table(data)
        self._recording.set_time(TIMELINE, timestamp=np.datetime64(wall_ns, "ns"))
        name = schema_name(topic) if topic in TOPICS else PICTURE
        if name == "foxglove.FrameTransforms":
            self._links(topic, content["transforms"])
        elif name == "foxglove.Log":
            level = LEVELS.get(content["level"], LEVELS[INFO])
            self._recording.log(topic, self._rerun.TextLog(content["message"], level=level))
        elif name == PICTURE:
            self._picture(topic, content)
        elif name == "foxglove.JointStates" and all("name" in joint for joint in content["joints"]):
            names = [joint["name"] for joint in content["joints"]]
            self._curves(topic, [joint["position"] for joint in content["joints"]], names)
        else:
            self._fields(topic, content)
        return True

    def _fields(self, topic: str, content: dict[str, Any]) -> None:
        words: dict[str, Any] = {}
        for name, value in content.items():
            if name in BESIDE:
                continue
            if is_number(value):
                self._curves(f"{topic}/{name}", [value], [name])
            elif isinstance(value, list) and value and all(map(is_number, value)):
                self._curves(f"{topic}/{name}", value, [f"{name} {index + 1}" for index in range(len(value))])
            elif isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
                rows = np.array([finite(row["joints"]) for row in value])
                self._recording.log(f"{topic}/{name}", self._rerun.Tensor(rows, dim_names=("row", "joint")))
            elif isinstance(value, dict) and len(text := json.dumps(value, indent=1)) > MOST_LINE:
                self._recording.log(f"{topic}/{name}", self._rerun.TextDocument(text))
            else:
                words[name] = value
        if words:
            self._recording.log(topic, self._rerun.TextLog(", ".join(said(words))[:MOST_LINE], level=LEVELS[INFO]))

    def _curves(self, entity: str, values: list[float | None], names: list[str]) -> None:
        if entity not in self._known:
            self._known.add(entity)
            self._recording.log(entity, self._rerun.SeriesLines(names=names), static=True)
        self._recording.log(entity, self._rerun.Scalars(finite(values)))

    def _picture(self, topic: str, content: dict[str, Any]) -> None:
        if topic not in self._cameras and _is_passing(topic):
            self._cameras.append(topic)
            self._arrange()
        data, rr = b64decode(content["data"], validate=True), self._rerun
        if content["format"] != H264:
            self._recording.log(topic, rr.EncodedImage(contents=data, media_type=f"image/{content['format']}"))
            return
        if topic not in self._known:
            self._known.add(topic)
            self._recording.log(topic, rr.VideoStream(codec=rr.VideoCodec.H264), static=True)
        self._recording.log(topic, rr.VideoStream.from_fields(sample=data))

    def _links(self, topic: str, transforms: list[dict[str, Any]]) -> None:
        """Each link's frame with its axes, and a line to it from that of its parent."""
        rr = self._rerun
        roots = roots_of(transforms)
        if not self._roots and roots:
            self._roots = list(dict.fromkeys(roots.values()))
            self._arrange()
        for pose in transforms:
            parent, child = pose["parent_frame_id"], pose["child_frame_id"]
            at = [pose["translation"][axis] for axis in "xyz"]
            turned = rr.Quaternion(xyzw=[pose["rotation"][axis] for axis in "xyzw"])
            entity = f"{topic}/{roots[child]}/{child}"
            if entity not in self._known:
                self._known.add(entity)
                for where, frame in ((entity, child), (f"{entity}/line", parent)):
                    self._recording.log(where, rr.CoordinateFrame(frame), static=True)
                self._recording.log(entity, rr.TransformAxes3D(AXIS_M), static=True)
            self._recording.log(
                entity, rr.Transform3D(translation=at, quaternion=turned, parent_frame=parent, child_frame=child)
            )
            self._recording.log(f"{entity}/line", rr.LineStrips3D([[[0, 0, 0], at]], radii=0.006))

    def _arrange(self) -> None:
        """The views beside each other, as far as cameras and links are known."""
        from rerun import blueprint as rrb

        links = [
            rrb.Spatial3DView(
                origin=f"{LINKS}/{root}",
                name=f"links from {root}",
                spatial_information=rrb.SpatialInformation(target_frame=root),
            )
            for root in self._roots
        ]
        pictures = [rrb.Spatial2DView(origin=camera, name=camera.removeprefix(CAMERAS)) for camera in self._cameras]
        seen = [rrb.Vertical(*links, *pictures)] if links or pictures else []
        curves = {
            "joints, rad or m": ["/joints/commanded", "/joints/measured"],
            "motion that the device holds, ms": ["/buffer/buffered_ms"],
            "observation to chunk, ms": ["/latency/observation_to_chunk_ms"],
            "lateness of the loop, us": ["/loop/late_us"],
        }
        plots = [
            rrb.TimeSeriesView(
                contents=contents, name=name, plot_legend=rrb.PlotLegend("RightTop", visible=len(contents) > 1)
            )
            for name, contents in curves.items()
        ]
        words = rrb.Tabs(
            rrb.TextLogView(contents=["/notices"], name="notices"),
            rrb.TextLogView(contents=["/decisions"], name="decisions"),
            rrb.TextLogView(contents=["/**"], name="everything said"),
            rrb.TextDocumentView(origin="/run/header", name="the run"),
            rrb.TextDocumentView(origin="/report/report", name="its report"),
        )
        told = rrb.Vertical(*plots, words, row_shares=[2, 1, 1, 1, 1])
        arranged = rrb.Horizontal(*seen, told, column_shares=[2, 3][-len(seen) - 1 :])
        hidden = rrb.BlueprintPanel(state="hidden"), rrb.SelectionPanel(state="hidden")
        time = rrb.TimePanel(state="collapsed", timeline=TIMELINE)
        self._recording.send_blueprint(rrb.Blueprint(arranged, time, *hidden))


def roots_of(transforms: list[dict[str, Any]]) -> dict[str, str]:
    """Of each link the frame that its chain begins in, which is nobody's link."""
    parents = {pose["child_frame_id"]: pose["parent_frame_id"] for pose in transforms}
    found = {}
    for child in parents:
        root = parents[child]
        for _ in parents:  # a chain that is none ends too
            root = parents.get(root, root)
        found[child] = root
    return found


def is_number(value: Any) -> bool:
    """Numbers, booleans, and null, which stands for a number that is not finite."""
    return value is None or isinstance(value, (bool, int, float))


def finite(values: list[float | None]) -> list[float]:
    return [math.nan if value is None else float(value) for value in values]


def said(words: dict[str, Any]) -> Iterator[str]:
    """What a message's words say, each string cut to its beginning."""
    for name, value in words.items():
        text = value if isinstance(value, str) else json.dumps(value)
        yield f"{name} {text if len(text) <= MOST_WORD or isinstance(value, dict) else text[:MOST_WORD] + '...'}"
