"""A long run under random faults of camera, inference, line and scheduling, and what became of it.

`edge-run --on-inference-loss wait --log` drives the simulated bench through a line that can be made to misbehave.
Something goes wrong every 6 to 15 s, drawn from the seed. The camera fails by itself for 3 s, 20 s after inference has
started. Whenever inference has to start again, the cubes it sees stand a little elsewhere, so that the arm keeps
moving; the arm itself meets none (no contacts). When the run waits for a word, it gets one a second later: to start, or
first to take the arm home, when a minute has gone by since it was there; if it does not wait by then, it is told to
pause. At the end:

- the device's own trace, position by position, against its limits;
- the resident memory of control and inference, the last third of the run against the third before it;
- every fault against the log: what was to be seen of it, with its reason.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import tty
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edge.sim.bench import (
    MODEL_FILE,
    SimulatedBench,
)  # first: it chooses the GL backend before mujoco is imported

import mujoco
import numpy as np
from mcap.exceptions import McapError
from mcap.reader import make_reader

from edge.arms import load_arm
from edge.realtime.rights import CpuPlan, realtime
from edge.sim.scene import Placement, build_model
from edge.log.trace import trace_blocks, violations
from firmware_bridge.fault_proxy import Faults, FaultyTransport, serve
from firmware_bridge.transports import open_transport

FIRST_SCENE = 3_000_000
CAMERA_FAULT = "stall_after=20&for=3"
CALM = Faults()
LOST_NS = 1_200_000_000
"""An answer that takes longer than two periods is a loss."""
START_MESSAGE = "waits for the start command"
MEMORY_EVERY_S = 5.0
PAUSE_AGAIN_S = 10.0
HOME_EVERY_S = 60.0
"""A policy that has reached its cube and is not told to stop drifts, by a milliradian and more a second."""
MOVED_M = 0.04
SCENES = 8
START_S = 90.0


@dataclass
class Happened:
    """One fault: when it began and ended, in ns of the monotonic clock."""

    kind: str
    began_ns: int
    ended_ns: int = 0
    noticeable: bool = True


@dataclass
class Soak:
    """A run and all that is around it."""

    folder: Path
    run: subprocess.Popen[str]
    line: FaultyTransport
    draw: random.Random
    scenes: list[Path] = field(default_factory=list)
    held: threading.Event = field(default_factory=threading.Event)
    happened: list[Happened] = field(default_factory=list)
    memory: list[tuple[float, dict[str, int]]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def inference(self) -> int | None:
        """Process id of inference, while there is one."""
        children = Path(f"/proc/{self.run.pid}/task/{self.run.pid}/children").read_text().split()
        for pid in children:
            try:
                if "edge.inference.process" in Path(f"/proc/{pid}/cmdline").read_text():
                    return int(pid)
            except OSError:
                continue
        return None

    def pause_process(self, pid: int | None, seconds: float) -> None:
        if pid is not None:
            os.kill(pid, signal.SIGSTOP)
            time.sleep(seconds)
            try:
                os.kill(pid, signal.SIGCONT)
            except ProcessLookupError:
                return

    def line_faults(self, faults: Faults, seconds: float) -> None:
        self.line.change(faults)
        time.sleep(seconds)
        self.line.change(CALM)

    def move_cubes(self) -> None:
        """For the next inference process: it reads the scene when it starts.

        Only by a little. The policy has learned to reach from the home pose; from cube to far-off cube it wanders up to
        a joint's limit, where the host ends the run, rightly.
        """
        other = self.folder / "other.mjb"
        shutil.copyfile(self.draw.choice(self.scenes), other)
        other.rename(self.folder / MODEL_FILE)

    def hang_inference(self) -> None:
        self.move_cubes()
        self.pause_process(self.inference(), 8.0)

    def kill_inference(self) -> None:
        self.move_cubes()
        pid = self.inference()
        self.happened[-1].noticeable = pid is not None
        if pid is not None:
            os.kill(pid, signal.SIGKILL)


FAULTS: dict[str, Callable[[Soak], None]] = {
    "inference killed": Soak.kill_inference,
    "inference hangs": Soak.hang_inference,
    "inference stalls": lambda soak: soak.pause_process(soak.inference(), soak.draw.uniform(0.2, 0.6)),
    "control stalls": lambda soak: soak.pause_process(soak.run.pid, soak.draw.uniform(0.03, 0.06)),
    "line damaged": lambda soak: soak.line_faults(Faults(bit_flip=0.001, garbage=0.02), 2.0),
    "line lossy": lambda soak: soak.line_faults(Faults(loss=0.05, duplicate=0.02, reorder=0.02), 2.0),
    "line batches": lambda soak: soak.line_faults(Faults(batch_ms=16.0, delay_ms=2.0), 3.0),
    "line silent": lambda soak: soak.line_faults(Faults(loss=1.0), soak.draw.uniform(0.02, 0.05)),
}
SEEN_IN = {
    "inference killed": "killed by SIGKILL",
    "inference hangs": "has not answered",
}
"""What `/decisions` has to say of those faults that are always to be noticed: as a loss while the arm moves, as an
attempt to start inference that failed while it rests."""


def moved_scenes(folder: Path, draw: random.Random) -> list[Path]:
    """Scenes with the cubes a little elsewhere. Made before the run: to compile one keeps the line's thread waiting."""
    first, paths = Placement.sample(np.random.default_rng(FIRST_SCENE)).xy_m, []
    for number in range(SCENES):
        by = [draw.uniform(-MOVED_M, MOVED_M) for _ in range(2)]
        paths.append(folder / f"moved-{number}.mjb")
        mujoco.mj_saveModel(build_model(Placement(tuple((x + by[0], y + by[1]) for x, y in first))), str(paths[-1]))
    return paths


def carry(line: FaultyTransport, master: int, ended: threading.Event) -> None:
    """The line. Nothing but its faults should hold it up."""
    with realtime(CpuPlan((), ())):
        serve(line, master, ended.is_set)


def listen(soak: Soak) -> None:
    """Reads what the run says, and gives the word when it waits for one."""
    assert soak.run.stdout is not None
    for text in soak.run.stdout:
        soak.lines.append(text.rstrip())
        if START_MESSAGE in text:
            soak.held.set()


def resident_kb(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status).group(1))  # type: ignore[union-attr]


class Operator:
    """Gives the word that a run waits for, and sends the arm home now and then."""

    def __init__(self, now_s: float) -> None:
        self.trips = 0
        self._command_at_s: float | None = None
        self._home_at_s = self._pause_at_s = now_s + HOME_EVERY_S

    @property
    def busy(self) -> bool:
        """A word is due."""
        return self._command_at_s is not None

    def step(self, soak: Soak, now_s: float) -> bool:
        """Returns whether the command was given now."""
        if soak.held.is_set():
            soak.held.clear()
            self._command_at_s = now_s + 1.0
        if self._command_at_s is None:
            if now_s >= self._pause_at_s:
                soak.run.send_signal(signal.SIGUSR2)
                self._pause_at_s = now_s + PAUSE_AGAIN_S
            return False
        if now_s < self._command_at_s:
            return False
        self._command_at_s = None
        home = now_s >= self._home_at_s
        soak.run.send_signal(signal.SIGRTMIN if home else signal.SIGUSR1)
        if home:
            self.trips += 1
            self._home_at_s = self._pause_at_s = now_s + HOME_EVERY_S
        return True


def drive(soak: Soak, seconds: float) -> int:
    """Lets things go wrong until it is time. Returns how often the arm was sent home."""
    began = time.monotonic()
    next_fault = began + 10.0
    next_memory = began
    operator = Operator(began)
    while time.monotonic() - began < seconds and soak.run.poll() is None:
        now = time.monotonic()
        if operator.step(soak, now):
            next_fault = max(next_fault, now + 3.0)
        if now >= next_memory:
            next_memory = now + MEMORY_EVERY_S
            pids = {"control": soak.run.pid, "inference": soak.inference()}
            soak.memory.append((now - began, {name: resident_kb(pid) for name, pid in pids.items() if pid}))
        if now >= next_fault and not operator.busy:
            kind = soak.draw.choice(list(FAULTS))
            happened = Happened(kind, time.monotonic_ns())
            soak.happened.append(happened)
            print(f"{now - began:7.1f} s  {kind}", flush=True)
            FAULTS[kind](soak)
            happened.ended_ns = time.monotonic_ns()
            next_fault = time.monotonic() + soak.draw.uniform(6.0, 15.0)
        time.sleep(0.05)
    return operator.trips


@dataclass(frozen=True)
class Log:
    """What the log of a run says. Times in ns of the monotonic clock; `answered` by the number of the request."""

    decisions: list[tuple[int, str]]
    requests: list[tuple[int, int]]
    answered: dict[int, int]

    def reports(self, happened: Happened) -> bool:
        """Whether a fault that is always to be noticed is there with its reason.

        On the way home, at rest, and while it starts nobody asks inference: that it hangs then nobody is to see.
        """
        pattern = SEEN_IN.get(happened.kind)
        if pattern is None or (happened.kind == "inference hangs" and not self._unanswered(happened)):
            return True
        until_ns = happened.ended_ns + 4_000_000_000
        return any(re.search(pattern, text) for at, text in self.decisions if happened.began_ns <= at <= until_ns)

    def _unanswered(self, happened: Happened) -> bool:
        asked = [(at, number) for at, number in self.requests if happened.began_ns <= at <= happened.ended_ns - LOST_NS]
        return any(self.answered.get(number, at + LOST_NS) - at >= LOST_NS for at, number in asked)


def read_log(path: Path) -> Log:
    """Raises `McapError`."""
    topics: dict[str, list[dict[str, Any]]] = {"/decisions": [], "/plan/request": [], "/plan/result": []}
    with path.open("rb") as file:
        for _, channel, message in make_reader(file).iter_messages(topics=list(topics)):
            topics[channel.topic].append(json.loads(message.data))
    return Log(
        [(message["host_ns"], json.dumps(message)) for message in topics["/decisions"]],
        [(message["host_ns"], message["id"]) for message in topics["/plan/request"]],
        {message["id"]: message["host_ns"] for message in topics["/plan/result"]},
    )


def judge(soak: Soak, limits: Any) -> dict[str, Any]:
    """The findings, and the figures behind them."""
    findings = []
    rows = 0
    for block in trace_blocks(soak.folder / "trace.csv"):
        rows += len(block.q)
        findings += [f"limit: {found}" for found in violations(block, limits)]
    try:
        log = read_log(soak.folder / "soak.mcap")
    except McapError as error:
        findings.append(f"the log cannot be read: {error}")
        log = Log([], [], {})
    unseen = [
        f"not in the log: {happened.kind} at {happened.began_ns}"
        for happened in soak.happened
        if happened.noticeable and not log.reports(happened)
    ]
    paused = [text for _, text in log.decisions if '"paused"' in text and "no new frame" in text]
    if not paused:
        unseen.append("not in the log: the camera's fault")
    third = len(soak.memory) // 3
    growth = {}
    for name in ("control", "inference"):
        middle, last = (
            np.median([sizes[name] for _, sizes in part if name in sizes])
            for part in (soak.memory[third : 2 * third], soak.memory[2 * third :])
        )
        growth[name] = round(float(last / middle - 1), 4)
    findings += unseen + [f"memory of {name} grew by {share:.1%}" for name, share in growth.items() if share > 0.01]
    kinds = sorted({happened.kind for happened in soak.happened})
    return {
        "minutes": round(rows / 60_000, 1),
        "faults": {kind: sum(happened.kind == kind for happened in soak.happened) for kind in kinds},
        "camera_pauses": len(paused),
        "memory_growth": growth,
        "resident_mb": {name: round(size / 1024, 1) for name, size in soak.memory[-1][1].items()},
        "findings": findings,
        "said": sorted({re.sub(r"[\d.]+ s", "N s", text) for text in soak.lines if text.startswith("edge-run:")}),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"))
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("soak"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    arm = load_arm("franka")
    bench = SimulatedBench(arm, FIRST_SCENE, args.out, args.out / "trace.csv", contacts=False)
    draw = random.Random(args.seed)
    scenes = moved_scenes(args.out, draw)
    line = FaultyTransport(open_transport(f"serial:{bench.process.port}"), CALM, args.seed, time.monotonic_ns)
    master, slave = os.openpty()
    tty.setraw(slave)
    ended = threading.Event()
    proxy = threading.Thread(target=carry, args=(line, master, ended), daemon=True)
    proxy.start()
    arguments = ["--arm", "franka", "--bundle", str(args.bundle), "--bridge", f"serial:{os.ttyname(slave)}"]
    arguments += ["--camera", f"{bench.camera_url}?{CAMERA_FAULT}", "--duration", str(60 * args.minutes + 20)]
    arguments += ["--on-inference-loss", "wait", "--log", str(args.out / "soak.mcap")]
    arguments += ["--report", str(args.out / "run.json")]
    run = subprocess.Popen([sys.executable, "-m", "edge.cli.run", *arguments], stdout=subprocess.PIPE, text=True)
    soak = Soak(args.out, run, line, draw, scenes)
    threading.Thread(target=listen, args=(soak,), daemon=True).start()
    deadline = time.monotonic() + START_S
    while not any("first inference" in text for text in soak.lines) and time.monotonic() < deadline:
        time.sleep(0.1)
    with realtime(CpuPlan((), ())):  # a stall of 50 ms has to be one of 50 ms
        trips = drive(soak, 60 * args.minutes)
    early = run.poll()
    if early is None:
        run.send_signal(signal.SIGINT)
    run.wait(timeout=60)
    ended.set()
    proxy.join()
    bench.close()
    verdict = judge(soak, arm.limits) | {"trips_home": trips}
    if early is not None:
        verdict["findings"].insert(0, f"the run ended by itself (exit {early}): {soak.lines[-1:]}")
    verdict["happened"] = [asdict(happened) for happened in soak.happened]
    (args.out / "soak.json").write_text(json.dumps(verdict, indent=1))
    print(json.dumps({key: value for key, value in verdict.items() if key != "happened"}, indent=1))
    return 1 if verdict["findings"] else 0


if __name__ == "__main__":
    sys.exit(main())
