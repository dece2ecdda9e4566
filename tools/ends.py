"""Random ends of runs: `edge-run` on the simulated bench, ended by a random cause at a random moment, and then judged.

What must hold whatever ended it: no process is left a second later, the drive is off, nothing that was recorded is
lost, nothing is left in the temporary folder, and every line that was printed is true. What was printed is compared
with the device's own trace. Prints one table; exit code 1 when an end breaks the law.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

ROOT = Path(__file__).resolve().parents[1]
ROLES = {
    "inference": "edge.inference.process",
    "log": "edge.log.writer",
    "progress": "edge.cli.progress",
    "page": "edge.doors.view.server",
    "device": "bridge-sim",
}
"""Children of a run, by what their command lines hold."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LONGEST_S = 180.0
"""After its cause a run has ended, on a machine that many share as well; one that hangs has not."""
GRACE_S = 1.0
"""After the end of a run none of its processes is there any more. Twice as long where the machine is shared."""
DURATION_S = 2.0
STARTED_S = 8.0
"""Within so long an unloaded machine has the arm moving; moments are drawn from a little more."""
ARMED = {"ARMED", "STREAMING", "DECEL", "HOLD"}
KNOWN = re.compile(
    r"^(edge-run: .+|bridge-sim: was held up .+|wrote .+|"
    r"(ended|chunks|replan rate|latency|loop lateness|splices|least buffer|limiter|refusals|target|pace|pauses|lost"
    r"|device clock|arm's line) .*| {2,}\S.*|)$"
)
NOT_MOVED = "it has not moved"
INCOMPLETE = "is incomplete"
"""What is said of a recording whose writer or disk has gone."""


@dataclass(frozen=True)
class Cause:
    """What ends a run: `count` signals to a process, or a stream or disk that is gone."""

    name: str
    apply: Callable[[Run], None]


@dataclass
class Run:
    """One `edge-run`, with what it leaves."""

    folder: Path
    process: subprocess.Popen[bytes]
    pids: dict[int, str] = field(default_factory=dict)
    """Every process of it that was ever seen, and its role."""

    def watch(self) -> None:
        """Notes who is there now."""
        self.pids[self.process.pid] = "control"
        for pid in descendants(self.process.pid):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                role = next((role for role, mark in ROLES.items() if mark in words), "other")
                self.pids[pid] = role

    def pid_of(self, role: str) -> int | None:
        self.watch()
        return next((pid for pid, is_of in self.pids.items() if is_of == role and not gone(pid)), None)

    def wait_for(self, role: str) -> int | None:
        """The process of a role once it is there; None when the run ends before."""
        while self.process.poll() is None:
            pid = self.pid_of(role)
            if pid is not None:
                return pid
            time.sleep(0.005)
        return None

    def states(self) -> list[str]:
        """What the device was in, in order; the last row of a process that was killed may be cut off."""
        trace = self.folder / "trace.csv"
        rows = trace.read_text().splitlines()[1:] if trace.exists() else []
        states = [row.split(",", 2)[1] for row in rows if row.count(",") > 2]
        return [state for at, state in enumerate(states) if at == 0 or state != states[at - 1]]


def descendants(pid: int) -> Iterator[int]:
    """Children and theirs, of all threads."""
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            for child in map(int, children.read_text().split()):
                yield child
                yield from descendants(child)


def gone(pid: int) -> bool:
    """Ended, whether or not somebody has taken notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def signalled(role: str, number: signal.Signals, count: int, pause_s: float) -> Cause:
    def apply(run: Run) -> None:
        pid = run.process.pid if role == "control" else run.wait_for(role)
        for _ in range(count):
            if pid is None or gone(pid):
                return
            with suppress(ProcessLookupError):
                os.kill(pid, number)
            time.sleep(pause_s)

    return Cause(f"{role}, {number.name}" + (f" x {count}" if count > 1 else ""), apply)


def unread(stream: str) -> Cause:
    def apply(run: Run) -> None:
        file = getattr(run.process, stream)
        os.close(file.fileno())
        with suppress(OSError):
            file.close()

    return Cause(f"{stream} closed", apply)


def terminal_closed(run: Run) -> None:
    """Both streams go, and the hang-up comes."""
    for stream in ("stdout", "stderr"):
        unread(stream).apply(run)
    with suppress(ProcessLookupError):
        run.process.send_signal(signal.SIGHUP)


def disk_full(role: str) -> Cause:
    """What a process writes from now on is refused; `prlimit` does what a full disk would."""

    def apply(run: Run) -> None:
        pid = run.process.pid if role == "control" else run.wait_for(role)
        if pid is not None:
            with suppress(ProcessLookupError):
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))

    return Cause(f"disk full for {role}", apply)


def drawn(random: Random) -> tuple[Cause, float]:
    """A cause and its moment, seconds after the start."""
    kind = random.choice(("stop", "stop", "stop", "control", "child", "child", "stream", "disk", "none"))
    if kind == "stop":
        cause = signalled(
            "control", random.choice(STOPS), random.choice((1, 2, 50)), random.choice((0.0, 0.01, 0.3, 0.7))
        )
    elif kind == "control":
        cause = signalled("control", signal.SIGKILL, 1, 0.0)
    elif kind == "child":
        cause = signalled(random.choice(list(ROLES)), random.choice((*STOPS, signal.SIGKILL)), 1, 0.0)
    elif kind == "stream":
        cause = random.choice((unread("stdout"), unread("stderr"), Cause("terminal closed", terminal_closed)))
    elif kind == "disk":
        cause = disk_full(random.choice(("log", "control")))
    else:
        cause = Cause("nothing", lambda run: None)
    return cause, random.choice((random.uniform(0, 2), random.uniform(0, STARTED_S + DURATION_S)))


def end_once(seed: int, bundle: Path, folder: Path) -> tuple[str, list[str]]:
    """The cause, and where the law was broken."""
    random = Random(seed)
    cause, moment_s = drawn(random)
    (folder / "tmp").mkdir()
    older = folder / "older.mcap"
    older.write_bytes(b"an older recording")
    command = [sys.executable, "-m", "edge.cli.run", "--arm", "franka", "--bundle", str(bundle), "--view"]
    command += ["--duration", str(DURATION_S), "--report", str(folder / "run.json"), "--log", str(folder / "run.mcap")]
    command += ["--trace", str(folder / "trace.csv")]
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    run = Run(folder, process)
    until_s = time.monotonic() + moment_s
    while time.monotonic() < until_s and process.poll() is None:
        run.watch()
        time.sleep(0.02)
    began = process.poll() is None and bool(run.pids.keys() - {process.pid})
    with ThreadPoolExecutor(2) as readers:
        cause.apply(run)
        texts = [readers.submit(_read, stream) for stream in (process.stdout, process.stderr)]
        deadline_s = time.monotonic() + LONGEST_S
        while process.poll() is None and time.monotonic() < deadline_s:
            run.watch()
            time.sleep(0.02)
        broken = [] if process.poll() is not None else [f"still there after {LONGEST_S:.0f} s"]
        broken += _left(run)
        hung = process.poll() is None
        process.kill()
        process.wait()
        out, err = (text.result() for text in texts)
    broken += [] if hung else judged(run, cause, (out + err).splitlines(), began)
    return cause.name, [f"seed {seed}, {cause.name} at {moment_s:.2f} s: {text}" for text in broken]


def _read(stream: object) -> str:
    try:
        return stream.read().decode(errors="replace")  # type: ignore[attr-defined]
    except (OSError, ValueError):  # the one that was closed
        return ""


def _left(run: Run) -> list[str]:
    deadline_s = time.monotonic() + GRACE_S
    while time.monotonic() < deadline_s and not all(map(gone, run.pids)):
        time.sleep(0.02)
    return [f"{role} (pid {pid}) is left" for pid, role in run.pids.items() if not gone(pid)]


def judged(run: Run, cause: Cause, lines: Sequence[str], began: bool) -> list[str]:
    """Where the law was broken, but for processes that are left."""
    code, states, text = run.process.returncode, run.states(), "\n".join(lines)
    killed, report_file, log = code < 0, run.folder / "run.json", run.folder / "run.mcap"
    was_armed = bool(ARMED & set(states))
    device_killed = cause.name.startswith("device")
    broken = [f"printed {line!r}" for line in lines if not KNOWN.match(line) and began]

    def law(holds: bool, text: str) -> None:
        broken.extend([] if holds else [text])

    stopped_early = NOT_MOVED in text
    law(not (killed and began) or cause.name in ("control, SIGKILL",), f"ended by signal {-code}")
    if not killed:
        law(code in (0, 1, 2), f"exit code {code}")
        law(device_killed or not states or states[-1] in ("IDLE", "SILENT"), f"the device was left in {states[-1:]}")
        law(list((run.folder / "tmp").iterdir()) == [], "something is left in the temporary folder")
    law(not stopped_early or not was_armed, "said that it has not moved, and it was armed")
    law(code != 2 or not was_armed, "exit code 2, and the arm was armed")
    law(code != 0 or "safety stop" not in text, "exit code 0 after a safety stop")
    law(
        code != 1 or "safety stop" in text or "closed" in cause.name or INCOMPLETE in text or not began,
        "exit code 1 without a safety stop",
    )
    law((run.folder / "older.mcap").read_bytes() == b"an older recording", "an older recording is lost")
    if code in (0, 1) and was_armed:
        law(report_file.exists() or "the run's figures are in the table alone" in text, "no report")
        if report_file.exists():
            report = json.loads(report_file.read_text())
            law(report["ended"] != "safety stop" or code == 1, "a safety stop in the report, and exit code 0")
            printed = next((line.split()[1] for line in lines if line.startswith("ended ")), None)
            law(printed in (None, *report["ended"].split()), f"the table says {printed}, the report {report['ended']}")
            law(printed is not None or "closed" in cause.name, "no table")
            if cause.name.startswith("control") and "x 50" in cause.name and code == 0:
                law(report["ended"] in ("user", "duration"), f"ended {report['ended']}")
    for written in re.findall(r"wrote (\S+?)(?: and (\S+))?(?:;|$)", text, re.MULTILINE):
        law(all(Path(path).stat().st_size > 0 for path in written if path), f"said that it wrote {written}")
    if was_armed and not killed:
        law(log.exists(), "no recording")
    if log.exists() and log.stat().st_size:
        broken.extend(_read_log(log, complete=code in (0, 1) and INCOMPLETE not in text and not killed))
    return broken


def _read_log(path: Path, complete: bool) -> list[str]:
    from edge.log.mcap_log import LogError, LogReader

    reader = LogReader(path)
    try:
        count = sum(1 for _ in reader.records())
    except LogError as error:
        return [f"the recording is not readable: {error}"]
    return ["the recording is cut off"] if complete and reader.truncated else [] if count else ["no record in it"]


def campaign(seeds: Iterable[int], bundle: Path, at_once: int) -> tuple[dict[str, list[int]], list[str]]:
    """Ends and broken ones by cause, and each that is broken."""
    rows: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    broken: list[str] = []

    def one(seed: int) -> tuple[str, list[str]]:
        with tempfile.TemporaryDirectory(prefix="ends-") as folder:
            return end_once(seed, bundle, Path(folder))

    with ThreadPoolExecutor(at_once) as pool:
        for name, faults in pool.map(one, seeds):
            rows[name][0] += 1
            rows[name][1] += bool(faults)
            broken += faults
            for fault in faults:
                print(fault, file=sys.stderr, flush=True)
    return dict(rows), broken


def table(rows: dict[str, list[int]]) -> str:
    """Markdown: cause, ends, those that broke the law."""
    lines = ["| cause | ends | law broken |", "|---|---|---|"]
    lines += [f"| {name} | {ends} | {broken} |" for name, (ends, broken) in sorted(rows.items())]
    total = [sum(row[index] for row in rows.values()) for index in (0, 1)]
    return "\n".join([*lines, f"| all | {total[0]} | {total[1]} |"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="ends", description=__doc__.split("\n\n")[0])
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="ends (default %(default)d)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="seed of the first (default %(default)d)")
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="runs side by side (default %(default)d)")
    args = parser.parse_args()
    rows, broken = campaign(range(args.first, args.first + args.count), args.bundle.resolve(), args.at_once)
    print(table(rows))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
