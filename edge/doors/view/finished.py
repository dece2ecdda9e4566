"""A finished run as one page: frames, joints, chunks and decisions by a slider, all of it in one file, from its log."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edge.arms import available_arms, load_arm
from edge.arms.chain import chains_of
from edge.bundle.files import replacing
from edge.inference.records import Outcome, PlanResult
from edge.log.mcap_log import LogError, LogReader
from edge.log.pictures import H264, USED, frame_of, passing_frames
from edge.log.records import Kind, ProposedChunk, Record, Sample, unpack
from edge.log.topics import Messages
from edge.plan.trajectory import from_micro
from firmware_bridge.codes import MICRO, DeviceState, StopReason
from firmware_bridge.reading import one_line, told

STATIC = Path(__file__).parent / "static"
MOST_SAMPLES, MOST_CHUNKS, MOST_DECISIONS = 6000, 2000, 3000
MOST_FRAME_BYTES = 24 << 20
"""Of all cameras: a page that a browser opens at once. Of a longer film every so many frames are left out."""
JPEG_BYTES = 40_000
"""Of a frame of a video, once it is a JPEG: as one of 640 x 480."""
TEXT, DIGITS = 200, 5
PERSON_NS = 2_000_000_000
"""Between two chunks of a leader, within one take-over."""
WRAP_US = 1 << 32
PASSED_OVER = frozenset({"expect", "replan_every", "joined", "splice", "shaped"})
"""What happens with every chunk, and says nothing to a person that the plots do not show."""
PROSE = ("why", "reason", "error", "text")
STATES = {state.value: state.name.lower() for state in DeviceState}
REASONS = {reason.value: reason.name.lower().replace("_", " ") for reason in StopReason}


@dataclass
class _Run:
    """What a log holds for the page; times are host times in ns."""

    header: dict[str, Any] = field(default_factory=dict)
    made_from: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    sampled_ns: list[int] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    decisions: list[tuple[int, str, str]] = field(default_factory=list)
    led_ns: list[int] = field(default_factory=list)
    frames: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    """Of each camera: when a frame was captured, and the size of its file."""
    _messages: Messages = field(default_factory=Messages)

    def take(self, record: Record) -> None:
        body = unpack(record.kind, record.body)
        if record.kind is Kind.HEADER:
            self.header = body
        elif record.kind is Kind.CONTROLLER:
            self.made_from = body
        elif record.kind is Kind.ENDED:
            self.report = body
        elif isinstance(body, Sample):
            self.sampled_ns.append(record.host_ns)
            self.samples.append(body)
        elif isinstance(body, PlanResult) and body.outcome is Outcome.LEADER:
            self.led_ns.append(record.host_ns)
        elif isinstance(body, ProposedChunk):
            self._propose(record.host_ns, body)
        for topic, content in self._messages.of(record):
            if topic == "/decisions":
                self._decide(record.host_ns, content["decision"], content["details"])

    def see(self, topic: str, data: bytes) -> None:
        if topic.endswith(USED):
            return
        frame = frame_of(topic, data)
        assert frame is not None  # by its topic
        size = JPEG_BYTES if frame.format == H264 else len(frame.data)
        self.frames.setdefault(frame.camera, []).append((frame.host_ns, size))

    def _propose(self, host_ns: int, chunk: ProposedChunk) -> None:
        if not self.samples:
            return
        ahead_us = (chunk.start_us - self.samples[-1].device_us + WRAP_US // 2) % WRAP_US - WRAP_US // 2
        start_ns = self.sampled_ns[-1] + 1000 * ahead_us
        told = {"id": chunk.chunk, "told": host_ns, "start": start_ns, "dt_us": chunk.spacing_us, "q": chunk.q_urad}
        self.chunks.append({**told, "joined": None})

    def _decide(self, host_ns: int, name: str, details: dict[str, Any]) -> None:
        if name == "joined" and self.chunks and "device_us" in details:
            ahead_us = int(details["device_us"]) - self.samples[-1].device_us if self.samples else 0
            self.chunks[-1]["joined"] = self.sampled_ns[-1] + 1000 * ahead_us
        if name not in PASSED_OVER:
            self.decisions.append((host_ns, name, one_line(_said(details), TEXT)))


def write_run_page(log: Path, out: Path) -> None:
    """Writes the page of a log. Raises `LogError` for one that shows no motion, `OSError`."""
    run = _Run()
    try:
        for record in LogReader(log).records(run.see):
            run.take(record)
        if not run.samples or not run.made_from:
            raise LogError(f"{log}: holds no motion; record a run with --log that gets as far as moving")
        shown = _plain(log, run)
    except (ValueError, TypeError, LookupError) as error:
        raise LogError(f"{log}: is damaged: {told(error)}") from None
    text = (STATIC / "run.html").read_text(encoding="utf-8")
    style, script = (
        "\n".join((STATIC / name).read_text(encoding="utf-8") for name in names)
        for names in (("view.css", "run.css"), ("arm.js", "run.js"))
    )
    packed = json.dumps(shown, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    for mark, part in (("STYLE", style), ("SCRIPT", script), ("RUN", packed)):
        text = text.replace(f"/* {mark} */", part)
    with replacing(out) as partial:
        partial.write_text(text, encoding="utf-8")


def _chains(arm: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The links of the arm by today's profile of its name: a log does not hold them."""
    found = load_arm(arm["name"]) if arm["name"] in available_arms() else None
    return chains_of(found) if found is not None and list(found.joints) == list(arm["joints"]) else []


def _plain(log: Path, run: _Run) -> dict[str, Any]:
    zero_ns = run.sampled_ns[0]

    def seconds(host_ns: int) -> float:
        return round((host_ns - zero_ns) / 1e9, 4)

    kept = _thinned(range(len(run.samples)), MOST_SAMPLES)
    rows = [run.samples[index] for index in kept]
    settings, arm = run.header.get("settings", {}), run.made_from["arm"]
    bridge = str(run.header.get("bridge", ""))
    changes = [
        (seconds(at_ns), STATES.get(one.state, str(one.state)))
        for index, (at_ns, one) in enumerate(zip(run.sampled_ns, run.samples))
        if index == 0 or run.samples[index - 1].state != one.state
    ]
    why, bad = _why(run)
    return {
        "arm": str(arm.get("model", arm["name"])),
        "simulated": bridge in ("sim:", "lockstep"),
        "task": str(settings.get("task", "")),
        "bridge": bridge,
        "joints": list(arm["joints"]),
        "units": list(arm["units"]),
        "limits": [list(arm["operating"][end]) for end in ("position_min_rad", "position_max_rad")],
        "chains": _chains(arm),
        "why": why,
        "bad": bad,
        "facts": _facts(log, run),
        "t": [seconds(run.sampled_ns[index]) for index in kept],
        "commanded": _columns([one.commanded_urad for one in rows]),
        "measured": _columns([one.measured_urad for one in rows]),
        "buffered": [one.buffered_ms for one in rows],
        "states": changes,
        "chunks": [
            {
                "told": seconds(one["told"]),
                "t": seconds(one["start"]),
                "dt": one["dt_us"] * MICRO,
                "q": np.round(from_micro(one["q"]), DIGITS).tolist(),
                "joined": None if one["joined"] is None else seconds(one["joined"]),
            }
            for one in _thinned(run.chunks, MOST_CHUNKS)
        ],
        "person": [[seconds(first), seconds(last)] for first, last in _spans(run.led_ns)],
        "decisions": [[seconds(at_ns), name, text] for at_ns, name, text in _thinned(run.decisions, MOST_DECISIONS)],
        "cameras": _films(log, run, zero_ns),
    }


def _why(run: _Run) -> tuple[str, bool]:
    """Why the run stopped, and whether that is bad."""
    ended, error = run.report.get("ended"), run.report.get("error")
    if error:
        return f"Stopped: {error}", True
    if ended is None:
        return "The log ends before its run did.", True
    meant = {"duration": "its time was over", "user": "the operator ended it", "policy": "the policy had ended"}
    return f"Ended: {meant.get(str(ended), str(ended))}.", False


def _facts(log: Path, run: _Run) -> dict[str, str]:
    settings, counted = run.header.get("settings", {}), [name for _, name, _ in run.decisions]
    bundle = run.header.get("bundle") or {}
    seconds = (run.sampled_ns[-1] - run.sampled_ns[0]) / 1e9
    facts = {
        "log": log.name,
        "made by": run.header.get("created_by"),
        "duration": f"{seconds:.1f} s",
        "chunks": f"{counted.count('committed')} committed, {counted.count('late')} late, "
        f"{counted.count('refused')} refused",
        "seed": settings.get("seed"),
        "bundle": settings.get("bundle") or (bundle.get("checkpoint_sha256") if isinstance(bundle, dict) else None),
    }
    return {name: one_line(str(value), TEXT) for name, value in facts.items() if value not in (None, "")}


def _films(log: Path, run: _Run, zero_ns: int) -> list[dict[str, Any]]:
    """The frames of each camera: JPEGs as they lie in the log, those of a video made anew."""
    total = sum(size for frames in run.frames.values() for _, size in frames)
    every = -(-total // MOST_FRAME_BYTES) or 1
    wanted = {name: {at_ns for at_ns, _ in frames[::every]} for name, frames in run.frames.items()}
    films: dict[str, list[tuple[float, str]]] = {name: [] for name in run.frames}
    if films:
        for frame in passing_frames(log, lambda frame: frame.host_ns in wanted[frame.camera], "jpeg"):
            at_s = round((frame.host_ns - zero_ns) / 1e9, 4)
            films[frame.camera].append((at_s, b64encode(frame.data).decode("ascii")))
    return [{"name": name, "frames": sorted(frames)} for name, frames in films.items()]


def _columns(rows: Sequence[Sequence[int]]) -> list[list[float]]:
    columns: list[list[float]] = np.round(from_micro(np.array(rows)).T, DIGITS).tolist()
    return columns


def _thinned(rows: Any, most: int) -> Any:
    return rows[:: -(-len(rows) // most) or 1]


def _spans(times_ns: Sequence[int]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for at_ns in times_ns:
        if spans and at_ns - spans[-1][1] < PERSON_NS:
            spans[-1] = (spans[-1][0], at_ns)
        else:
            spans.append((at_ns, at_ns))
    return spans


def _said(details: dict[str, Any]) -> str:
    """A decision's numbers and its reason, in words."""
    said = []
    for name, value in details.items():
        if value in (None, [], ""):
            continue
        if isinstance(value, str) and name in PROSE:
            said.append(value)
        elif name == "state" and isinstance(value, int):
            said.append(STATES.get(value, str(value)))
        elif name == "reason" and isinstance(value, int):
            said.append(REASONS.get(value, str(value)))
        else:
            said.append(f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}")
    return ", ".join(said)
