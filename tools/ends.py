"""Random ends of runs: `edge-run` on the simulated bench, ended by a random cause at a random moment, and then judged.

What must hold whatever ended it: no process is left a second later, the drive is off, nothing that was recorded is
lost, nothing is left in the temporary folder, and every line that was printed is true. What was printed is compared
with the device's own trace. Prints one table; exit code 1 when an end breaks the law. With `--add-to FILE` the sums are
kept there after each end, and the next run goes on with the seeds that follow.
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
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random

from edge.bundle.files import replacing

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
"""After control none of its processes is there for longer, the log's writer included, which finishes the recording
first. Time in which others had the processor does not count."""
DURATION_S = 2.0
EARLY_S, STARTED_S, LATER_S = 2.0, 8.0, 5.0
"""Moments are drawn from so long after the start, where an unloaded machine has the arm moving within the second of
them, or from so long after the arm has begun to move: motion, stop, table, report, plot and log."""
ARMED = {"ARMED", "STREAMING", "DECEL", "HOLD"}
KNOWN = re.compile(
    r"^(edge-run: .+|bridge-sim: was held up .+|wrote .+|"
    r"(ended|chunks|replan rate|latency|loop lateness|splices|least buffer|limiter|refusals|target|pace|pauses|lost"
    r"|device clock|arm's line) .*| {2,}\S.*|)$"
)
NOT_MOVED = "it has not moved"
INCOMPLETE = "is incomplete"
"""What is said of a recording whose writer or disk has gone."""
OUTPUT_LOST = re.compile(f"{INCOMPLETE}|the run's figures are in the table alone|there is no plot")
"""Exit code 1 needs no other reason."""


@dataclass(frozen=True)
class Cause:
    """What ends a run: `count` signals to a process, or a stream or disk that is gone."""

    name: str
    apply: Callable[[Run], None]


@dataclass(frozen=True)
class Moment:
    """Seconds after the start, or after the arm has begun to move."""

    seconds: float
    in_motion: bool

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s {'in motion' if self.in_motion else 'from the start'}"


@dataclass
class Run:
    """One `edge-run`, with what it leaves."""

    folder: Path
    process: subprocess.Popen[bytes]
    pids: dict[int, str] = field(default_factory=dict)
    """Every process of it that was ever seen, and its role."""
    outlived_s: dict[str, float] = field(default_factory=dict)
    """By how much the last process of a role was there longer than control."""

    def watch(self) -> None:
        """Notes who is there now."""
        self.pids[self.process.pid] = "control"
        for pid in descendants(self.process.pid):
            with suppress(OSError):
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                role = next((role for role, mark in ROLES.items() if mark in words), "other")
                if pid not in self.pids:
                    as_patient_as_this(pid)
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

    def moves(self) -> bool:
        """Whether the arm has begun to move, by the end of the device's trace."""
        with suppress(OSError), (self.folder / "trace.csv").open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 4000))
            return b",STREAMING," in file.read()
        return False

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


def as_patient_as_this(pid: int) -> None:
    """Gives a process of another session the share of the processor that this one has.

    The system shares it out among sessions (sched(7), autogroup), and a child's own one begins as any other does.
    """
    with suppress(OSError, IndexError, ValueError):
        nice = Path("/proc/self/autogroup").read_text().split()[-1]
        if int(nice) > 0:
            Path(f"/proc/{pid}/autogroup").write_text(nice)


def state_of(pid: int) -> tuple[str, float]:
    """A process' state (proc(5), stat; "Z" where it has gone) and the seconds that it has computed."""
    try:
        words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return words[0], int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except OSError:
        return "Z", 0.0


def gone(pid: int) -> bool:
    """Ended, whether or not somebody has taken notice."""
    return state_of(pid)[0] == "Z"


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


def drawn(random: Random) -> tuple[Cause, Moment]:
    """A cause and its moment."""
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
    moments = Moment(random.uniform(0, EARLY_S), False), Moment(random.uniform(0, STARTED_S), False)
    return cause, random.choice((*moments, Moment(random.uniform(0, LATER_S), True)))


def end_once(seed: int, bundle: Path, folder: Path) -> tuple[str, list[str], dict[str, float]]:
    """The cause, where the law was broken, and by how many seconds each role's processes outlived control."""
    random = Random(seed)
    cause, moment = drawn(random)
    (folder / "tmp").mkdir()
    older = folder / "older.mcap"
    older.write_bytes(b"an older recording")
    command = [sys.executable, "-m", "edge.cli.run", "--arm", "franka", "--bundle", str(bundle), "--view"]
    command += ["--duration", str(DURATION_S), "--report", str(folder / "run.json"), "--log", str(folder / "run.mcap")]
    command += ["--trace", str(folder / "trace.csv")]
    environment = {**os.environ, "TMPDIR": str(folder / "tmp"), "OMP_NUM_THREADS": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # as users have it; to compile all again takes half a second
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    as_patient_as_this(process.pid)
    run = Run(folder, process)
    began_s = None if moment.in_motion else time.monotonic()
    while process.poll() is None and (began_s is None or time.monotonic() < began_s + moment.seconds):
        run.watch()
        began_s = time.monotonic() if began_s is None and run.moves() else began_s
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
        broken += left(run)
        hung = process.poll() is None
        process.kill()
        process.wait()
        out, err = (text.result() for text in texts)
    broken += [] if hung else judged(run, cause, (out + err).splitlines(), began)
    return cause.name, [f"seed {seed}, {cause.name} at {moment}: {text}" for text in broken], run.outlived_s


def _read(stream: object) -> str:
    try:
        return stream.read().decode(errors="replace")  # type: ignore[attr-defined]
    except (OSError, ValueError):  # the one that was closed
        return ""


def left(run: Run) -> list[str]:
    """Who is still there after the grace, of which time in which others had the processor is no part."""
    ended_s = last_s = time.monotonic()
    used_s = dict.fromkeys(run.pids, 0.0)
    computed_s = {pid: state_of(pid)[1] for pid in used_s}
    while True:
        time.sleep(0.02)
        now_s = time.monotonic()
        for pid in list(used_s):
            state, cpu_s = state_of(pid)
            if state == "Z":
                del used_s[pid]
                continue
            used_s[pid] += cpu_s - computed_s[pid] if state == "R" else now_s - last_s
            computed_s[pid] = cpu_s
            run.outlived_s[run.pids[pid]] = now_s - ended_s
            if used_s[pid] > GRACE_S:
                return [f"{run.pids[pid]} (pid {pid}) is left"]
        if not used_s:
            return []
        last_s = now_s


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
        code != 1
        or "safety stop" in text
        or OUTPUT_LOST.search(text) is not None
        or "closed" in cause.name
        or not began,
        "exit code 1 without a safety stop, and no output that is lost",
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
        broken.extend(_read_log(log, complete=code in (0, 1) and INCOMPLETE not in text))
    return broken


def _read_log(path: Path, complete: bool) -> list[str]:
    from edge.log.mcap_log import LogError, LogReader

    reader = LogReader(path)
    try:
        count = sum(1 for _ in reader.records())
    except LogError as error:
        return [f"the recording is not readable: {error}"]
    return ["the recording is cut off"] if complete and reader.truncated else [] if count else ["no record in it"]


Rows = dict[str, list[int]]
"""Ends, and those of them that broke the law, by cause."""


@dataclass
class Sum:
    """What came of the ends from `first` up to `next`."""

    first: int
    next: int
    rows: Rows = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)
    outlived_s: dict[str, float] = field(default_factory=dict)
    """The longest that a process of each role was there after control."""

    def add(self, seed: int, name: str, faults: list[str], outlived_s: dict[str, float]) -> None:
        row = self.rows.setdefault(name, [0, 0])
        self.rows[name] = [row[0] + 1, row[1] + bool(faults)]
        self.broken += faults
        for role, longest_s in outlived_s.items():
            self.outlived_s[role] = max(longest_s, self.outlived_s.get(role, 0.0))
        self.next = seed + 1


def campaign(seeds: Iterable[int], bundle: Path, at_once: int, sum_: Sum, keep: Callable[[], None]) -> None:
    """Adds each end to the sum, in the order of the seeds."""
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # under nohup, where it would mean nothing to a run either
        signal.signal(signal.SIGHUP, lambda number, frame: None)

    def one(seed: int) -> tuple[int, str, list[str], dict[str, float]]:
        with tempfile.TemporaryDirectory(prefix="ends-") as folder:
            return seed, *end_once(seed, bundle, Path(folder))

    with ThreadPoolExecutor(at_once) as pool:
        for seed, name, faults, outlived_s in pool.map(one, seeds):
            sum_.add(seed, name, faults, outlived_s)
            keep()
            for fault in faults:
                print(fault, file=sys.stderr, flush=True)


def table(sum_: Sum) -> str:
    """Markdown: cause, ends, those that broke the law; and who was there longest after control."""
    rows = sum_.rows
    lines = ["| cause | ends | law broken |", "|---|---|---|"]
    lines += [f"| {name} | {ends} | {broken} |" for name, (ends, broken) in sorted(rows.items())]
    total = [sum(row[index] for row in rows.values()) for index in (0, 1)]
    longest = ", ".join(f"{role} {longest_s:.2f} s" for role, longest_s in sorted(sum_.outlived_s.items()))
    lines += [f"| all | {total[0]} | {total[1]} |", "", f"there after control at most: {longest or 'nobody'}"]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="ends", description=__doc__.split("\n\n")[0])
    parser.add_argument("--bundle", type=Path, required=True, metavar="DIR")
    parser.add_argument("--count", type=int, default=2000, metavar="N", help="ends (default %(default)d)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="seed of the first (default %(default)d)")
    parser.add_argument(
        "--add-to", type=Path, metavar="FILE", help="JSON in which the sums are kept; goes on from there up to N"
    )
    parser.add_argument("--at-once", type=int, default=2, metavar="N", help="runs side by side (default %(default)d)")
    args = parser.parse_args()
    sum_ = Sum(args.first, args.first)
    if args.add_to and args.add_to.exists():
        sum_ = Sum(**json.loads(args.add_to.read_text()))

    def keep() -> None:
        if args.add_to:
            args.add_to.parent.mkdir(parents=True, exist_ok=True)
            with replacing(args.add_to) as partial:
                partial.write_text(json.dumps(asdict(sum_), indent=1))

    campaign(range(sum_.next, sum_.first + args.count), args.bundle.resolve(), args.at_once, sum_, keep)
    print(table(sum_), *sum_.broken, sep="\n")
    return 1 if sum_.broken else 0


if __name__ == "__main__":
    sys.exit(main())
