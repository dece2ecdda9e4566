"""What a log costs the control loop: time per record, and lateness with the log on and off.

First a loop of 250 Hz alone (under SCHED_FIFO where that is granted, as in a run), in turns of two seconds: without a
log, with the writer as a process (what `edge-run` does), and with the writer as a thread of the loop's own process.
With --bundle also whole runs of `edge-run` on the simulated bench, in turns without and with --log. With --cameras N a
process that takes the frames of N cameras runs beside the loop, in turns with nobody who logs them and with a log. Only
ratios of turns that alternate are worth anything.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, get_args

import numpy as np

from bench import options
from bench.document import Recording, notify
from bench.policy_run import TASK
from bench.tables import markdown, number
from edge.inference.film import CameraView
from edge.inference.mailbox import SharedMemory
from edge.inference.ring import Ring
from edge.log.mcap_log import LogWriter
from edge.log.pictures import Kept
from edge.log.recorder import Recorder
from edge.log.records import Clock, Journal, KeepClock, Kind, Loop, Poll, RingJournal
from edge.log.run_log import CAPACITY, RunLog
from edge.log.taps import open_recorder
from edge.log.writer import POLL_S, drain
from edge.realtime.scheduler import FixedStep, Histogram

RATE_HZ = 250
TURN_S = 2.0
STATE_FRAME = bytes(range(1, 83)) + b"\0"
"""As long as a state report of seven joints."""
RECORDS_PER_TICK = 8
PRIORITY = 60
PERCENTILES = (50, 95, 99)
FILM_PX = (480, 640)
DISK_MB = 200


def put_tick(journal: Journal, recorder: Recorder, tick: int) -> None:
    """The records of a tick that brings a report and sends a heartbeat: more than the average tick."""
    now_ns = time.monotonic_ns()
    journal.put(Kind.LOOP, Loop.body(tick, 0, 0))
    recorder.begin_step(now_ns, tick)
    journal.put(Kind.POLL, Poll.body(now_ns))
    journal.put(Kind.RECEIVED, STATE_FRAME)
    journal.put(Kind.CLOCK, Clock.body(now_ns))
    journal.put(Kind.SENT, STATE_FRAME[:20])
    recorder.sample(now_ns // 1000, range(7), range(7), 900, 3)
    journal.put(Kind.KEEP_CLOCK, KeepClock.body(now_ns, 0.003))


class ThreadLog:
    """The same ring, emptied by a thread: shares the interpreter's lock with the loop."""

    def __init__(self, path: Path) -> None:
        self._ring = Ring(SharedMemory(Ring.size_of(CAPACITY)), CAPACITY)
        self.journal = RingJournal(self._ring.push, time.monotonic_ns)
        self._log = LogWriter(path.open("wb"))
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while not self._done.wait(POLL_S):
            drain(self._ring, self._log)

    def close(self) -> None:
        self._done.set()
        self._thread.join()


def turn(journal: Journal | None, lateness: Histogram, cost_us: list[float], seconds: float = TURN_S) -> None:
    """Some seconds of the loop."""
    loop = FixedStep(round(1e9 / RATE_HZ), time.monotonic_ns, time.sleep)
    recorder = open_recorder(1000, 7, journal)
    for tick in range(round(seconds * RATE_HZ)):
        loop.wait()
        lateness.add(loop.late_ns // 1000)
        if journal is None:
            continue
        began = time.perf_counter()
        put_tick(journal, recorder, tick)
        cost_us.append(1e6 * (time.perf_counter() - began) / RECORDS_PER_TICK)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--turns", type=int, default=6, help="turns per mode of the loop alone (default %(default)d)")
    parser.add_argument("--bundle", type=Path, metavar="DIR", help="also whole runs with this bundle")
    parser.add_argument("--pairs", type=int, default=6, help="pairs of whole runs (default %(default)d)")
    parser.add_argument(
        "--cameras", type=int, default=0, metavar="N", help="also with the frames of N cameras of 640x480 at 30 Hz"
    )
    parser.add_argument(
        "--film", type=float, default=20.0, metavar="S", help="seconds of each turn with cameras (default %(default)g)"
    )
    parser.add_argument(
        "--log-frames", choices=get_args(Kept), default="jpeg", help="as for edge-run (default %(default)s)"
    )
    parser.add_argument(
        "--folder", type=Path, metavar="DIR", help="on the disk that the logs go to (default: that of temporary files)"
    )
    parser.add_argument("--duration", type=float, default=8.0, help="seconds of each (default %(default)g)")
    parser.add_argument(
        "--realtime",
        choices=("auto", "off"),
        default="auto",
        help="the loop under SCHED_FIFO, where granted (%(default)s)",
    )
    options.add_common(parser)


def run(args: argparse.Namespace) -> int:
    if args.quick:
        args.turns, args.pairs, args.duration, args.film = 1, 1, 2.0, 2.0
    granted = args.realtime == "auto" and request_realtime()
    settings = {
        "turns": args.turns,
        "pairs": args.pairs,
        "rate_hz": RATE_HZ,
        "SCHED_FIFO": granted,
        "frames": args.log_frames,
    }
    recording = Recording("log", settings, args.quick)
    if args.realtime == "auto" and not granted:
        recording.leave_out("the loop under SCHED_FIFO", "not granted: run as root, or give rtprio in limits.conf")
    with tempfile.TemporaryDirectory(prefix="vla-edge-bench-", dir=args.folder) as folder:
        recording.body = {"alone": loop_alone(args.turns, Path(folder))}
        if args.cameras:
            recording.body["film"] = film_cost(args.cameras, args.film, args.turns, Path(folder), args.log_frames)
        if args.bundle:
            recording.body["runs"] = whole_runs(args.bundle, args.pairs, args.duration, Path(folder))
        else:
            recording.leave_out(
                "whole runs of edge-run with and without --log", "no bundle was named; add --bundle DIR"
            )
    print("\n".join(lines(recording.body)))
    options.finish(args, recording)
    return 0


def loop_alone(turns: int, folder: Path) -> dict[str, Any]:
    """Lateness with each kind of log, and what a record costs."""
    modes = ("off", "process", "thread")
    lateness = {mode: Histogram() for mode in modes}
    cost_us: dict[str, list[float]] = {mode: [] for mode in modes}
    for _ in range(turns):
        for mode in modes:
            notify(f"log: {mode}")
            with ExitStack() as stack:
                journal: Journal | None = None
                if mode == "process":
                    log = RunLog(folder / "process.mcap", overwrite=True)
                    log.begin({})
                    stack.callback(log.close)
                    journal = log.journal
                    time.sleep(1.0)  # the writer imports; in a run the engines load meanwhile
                elif mode == "thread":
                    thread = ThreadLog(folder / "thread.mcap")
                    stack.callback(thread.close)
                    journal = thread.journal
                turn(journal, lateness[mode], cost_us[mode])
    found: dict[str, Any] = {}
    for mode in modes:
        late = {f"p{percent}": lateness[mode].percentile_us(percent) for percent in PERCENTILES}
        cost = [float(value) for value in np.percentile(cost_us[mode], [50, 99])] if cost_us[mode] else None
        found[mode] = {"late_us": late, "record_us": cost, "raw_record_us": [round(us, 2) for us in cost_us[mode]]}
    return found


def film_cost(cameras: int, seconds: float, turns: int, folder: Path, kept: Kept) -> dict[str, Any]:
    """Lateness beside a process that takes frames: with nobody who logs them, and with the log that does."""
    views = [CameraView(f"camera{number}", FILM_PX) for number in range(cameras)]
    lateness = {mode: Histogram() for mode in ("off", "on")}
    counts: Counter[str] = Counter()
    size, disk = 0, disk_mb_s(folder)
    for _ in range(turns):
        for mode in lateness:
            notify(f"{cameras} cameras, log {mode}")
            path = folder / "film.mcap"
            log = RunLog(path, overwrite=True, kept=kept) if mode == "on" else None
            if log is not None:
                log.prepare({}, views)
                log.open()
            film = _filming(log, views)
            assert film.stdout is not None
            film.stdout.readline()  # it has drawn its pictures
            turn(log.journal if log is not None else None, lateness[mode], [], seconds)
            film.communicate(b"\n")
            if log is not None:
                problem = log.close()
                if problem is not None:
                    notify(problem)
                counts.update(log.summary()["frames"])
                size += path.stat().st_size
    late = {mode: {f"p{p}": one.percentile_us(p) for p in PERCENTILES} for mode, one in lateness.items()}
    found = {"cameras": cameras, "seconds": seconds * turns, "late_us": late, "frames": dict(counts), "bytes": size}
    return found | {"disk_mb_s": disk}


def disk_mb_s(folder: Path) -> float:
    """What the disk takes: megabytes a second until they are on it, and not only in memory."""
    block = os.urandom(1_000_000)
    with (folder / "written").open("wb", buffering=0) as file:
        began = time.perf_counter()
        for _ in range(DISK_MB):
            file.write(block)
        os.fsync(file.fileno())
        took_s = time.perf_counter() - began
    (folder / "written").unlink()
    return DISK_MB / took_s


def _filming(log: RunLog | None, views: Sequence[CameraView]) -> subprocess.Popen[bytes]:
    arguments = ["--sizes", json.dumps([view.frame_px for view in views])]
    descriptors: list[int] = []
    if log is not None and log.frames is not None:
        descriptors = [log.frames.memory.descriptor]
        arguments += ["--memory", str(descriptors[0])]
    command = [sys.executable, "-m", "bench.film_source", *arguments]
    return subprocess.Popen(command, pass_fds=descriptors, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def film_lines(found: dict[str, Any]) -> list[str]:
    """What the frames cost the loop, and what became of them."""
    late, frames = found["late_us"], found["frames"]
    rows = [[mode, *(number(late[mode][f"p{percent}"]) for percent in PERCENTILES)] for mode in late]
    text = markdown((f"{found['cameras']} cameras, log", *(f"late p{percent}, us" for percent in PERCENTILES)), rows)
    ratio = late["on"]["p99"] / max(1, late["off"]["p99"])
    seen = frames["written"] + frames["dropped"]
    text += ["", f"p99 with the log to without: {ratio:.2f}. Of {seen} frames {frames['dropped']} were dropped"]
    text[-1] += f" ({frames['dropped'] / max(1, seen):.2%}); of chunks {frames['used_written']} written,"
    megabytes = found["bytes"] / 1e6
    text[-1] += f" {frames['used_dropped']} dropped. {megabytes:.0f} MB, {megabytes / found['seconds']:.1f} a second,"
    text[-1] += f" on a disk of {found['disk_mb_s']:.0f} MB a second."
    return text


def whole_runs(bundle: Path, pairs: int, duration_s: float, folder: Path) -> dict[str, Any]:
    """Lateness of whole runs without and with a log, pair by pair."""
    late: dict[str, list[dict[str, float]]] = {"off": [], "on": []}
    for pair in range(pairs):
        for mode in ("off", "on"):
            notify(f"edge-run, log {mode}, pair {pair + 1} of {pairs}")
            report = folder / "run.json"
            command = [sys.executable, "-m", "edge.cli.run", "--arm", "franka", "--bundle", str(bundle)]
            command += ["--task", TASK, "--duration", str(duration_s), "--report", str(report)]
            command += ["--log", str(folder / "run.mcap"), "--overwrite"] if mode == "on" else []
            subprocess.run(command, check=True, capture_output=True)
            late[mode].append(json.loads(report.read_text())["loop"]["lateness_us"])
    ratios = [on["p99"] / max(1, off["p99"]) for on, off in zip(late["on"], late["off"])]
    return {"late_us": late, "p99_ratios": ratios}


def lines(body: dict[str, Any]) -> list[str]:
    """The tables, as Markdown."""
    off = body["alone"]["off"]["late_us"]
    rows = [
        [
            mode,
            *(number(found["late_us"][f"p{percent}"]) for percent in PERCENTILES),
            number(found["late_us"]["p99"] / max(1, off["p99"])),
            " / ".join(number(us) for us in found["record_us"]) if found["record_us"] else "-",
        ]
        for mode, found in body["alone"].items()
    ]
    head = (
        "loop alone, log",
        *(f"late p{percent}, us" for percent in PERCENTILES),
        "p99 to off",
        "a record p50 / p99, us",
    )
    text = markdown(head, rows)
    if "film" in body:
        text += ["", *film_lines(body["film"])]
    if "runs" in body:
        late = body["runs"]["late_us"]
        middle = {
            mode: [statistics.median(one[f"p{percent}"] for one in runs) for percent in PERCENTILES]
            for mode, runs in late.items()
        }
        rows = [[mode, *(number(value) for value in values)] for mode, values in middle.items()]
        text += ["", *markdown(("edge-run, log", *(f"late p{percent}, us" for percent in PERCENTILES)), rows), ""]
        each = ", ".join(f"{ratio:.2f}" for ratio in body["runs"]["p99_ratios"])
        text.append(f"p99 with the log to without, pair by pair: {each}.")
    return text


def request_realtime() -> bool:
    """Puts this process, and not its children, above whatever else the machine does; False where not granted."""
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except PermissionError:
        return False
    return True
