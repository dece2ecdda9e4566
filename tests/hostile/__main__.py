"""Throws generated files at every reader of files, and at the commands, and holds one law.

A file is read, or refused by one line of at most 300 printable characters with exit code 2, within 5 s of computing and
512 MB beyond what the imports take, and nothing is written over. `make hostile-files` runs it whole. It works in
batches, each of a seed and in a process of its own; with `--add-to FILE` their sum is kept there after each, and the
next run goes on with the seeds that follow.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from edge.bundle.files import replacing
from firmware_bridge.reading import MOST_LINE, one_line
from tests.hostile.parsers import FIRST, Parser, parsers

MOST_S, MOST_BYTES = 5.0, 512 << 20
MOST_TEXT = 4000
"""Characters of a message before a command makes one line of it."""
KEPT = 5
BATCH, COMMAND_BATCH = 1000, 5
"""Inputs of one seed."""
AT_ONCE = 20
"""Inputs that are drawn as one example: most of what Hypothesis does, it does for each example."""


class TooLong(BaseException):
    """The time is over. No `except Exception` holds it up."""


@dataclass
class Tally:
    """What came of one reader's inputs."""

    first_seed: int = 0
    batches: int = 0
    command_batches: int = 0
    inputs: int = 0
    past_first: int = 0
    accepted: int = 0
    slowest_s: float = 0.0
    most_mb: float = 0.0
    commands: int = 0
    violations: int = 0
    examples: list[str] = field(default_factory=list)

    def broken(self, law: str, what: object) -> None:
        self.violations += 1
        if len(self.examples) < KEPT:
            self.examples.append(f"{law}: {one_line(repr(what), 200)}")

    def add(self, batch: Tally) -> None:
        """What came of one more batch."""
        for name in ("inputs", "past_first", "accepted", "commands", "violations"):
            setattr(self, name, getattr(self, name) + getattr(batch, name))
        for name in ("slowest_s", "most_mb"):
            setattr(self, name, max(getattr(self, name), getattr(batch, name)))
        self.examples = [*self.examples, *batch.examples][:KEPT]


def limited() -> None:
    """So much memory beyond what is there, and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST_BYTES,) * 2)


def drawn(parser: Parser, count: int, number: int, use: Callable[[Any], None]) -> None:
    """Draws so many inputs, or a few less, always the same for a seed."""
    at_once = max(1, min(AT_ONCE, count // 50))

    @settings(
        max_examples=-(-count // at_once),
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @seed(number)
    @given(st.lists(parser.inputs, min_size=at_once, max_size=at_once))
    def some(values: list[Any]) -> None:
        for value in values:
            use(value)

    some()


def in_process(parser: Parser, count: int, number: int, folder: Path) -> Tally:
    """Reads generated inputs, one after the other."""
    tally, place = Tally(), folder / "input"

    def over(_: int, frame: FrameType | None) -> None:
        raise TooLong

    signal.signal(signal.SIGPROF, over)
    limited()
    begun_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def use(value: Any) -> None:
        path = parser.write(value, place)
        tally.inputs += 1
        try:
            parser.first(path)
            tally.past_first += 1
        except FIRST:
            pass
        begun = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, MOST_S)
        try:
            parser.read(path)
            tally.accepted += 1
        except TooLong:
            tally.broken("longer than 5 s", value)
        except parser.errors as error:
            text = str(error)
            if len(text) > MOST_TEXT:
                tally.broken(f"a message of {len(text)} characters", text)
            if "allocat" in text or "MemoryError" in text:
                tally.broken("more than 512 MB", text)
        except BaseException as error:
            place_of = traceback.extract_tb(error.__traceback__)[-1]
            tally.broken(f"{type(error).__name__} at {Path(place_of.filename).name}:{place_of.lineno}", error)
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        tally.slowest_s = max(tally.slowest_s, time.process_time() - begun)

    drawn(parser, count, number, use)
    tally.most_mb = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - begun_kb) / 1024
    if tally.most_mb > MOST_BYTES / 2**20:
        tally.broken("more than 512 MB", tally.most_mb)
    return tally


def forked(work: Callable[[], Tally], folder: Path) -> Tally:
    """The tally of a process of its own, whose limits end with it."""
    out = folder / "tally.json"
    out.unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            out.write_text(json.dumps(asdict(work())))
        except BaseException:
            traceback.print_exc()
        os._exit(0)
    os.waitpid(child, 0)
    if not out.exists():
        return Tally(violations=1, examples=["the reading process died"])
    return Tally(**json.loads(out.read_text()))


def through_command(parser: Parser, count: int, number: int, folder: Path, tally: Tally) -> None:
    """Gives generated files to the real command, each in a process of its own."""
    files: list[Path] = []

    def keep(value: Any) -> None:
        files.append(parser.write(value, folder / f"file{len(files)}"))

    drawn(parser, count, number, keep)
    for path in files:
        accepted = True
        try:
            parser.read(path)
        except parser.errors:
            accepted = False
        out = folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        module, argv = parser.command(path, out)
        if accepted and module == "export.commands.export":
            continue  # it would go on to export
        before = contents(path)
        code, told, cpu_s, grown_mb = run_main(module, argv, folder)
        tally.commands += 1
        if code == 2 and not (told.count("\n") == 1 and len(told) <= MOST_LINE + 1 and told[:-1].isprintable()):
            tally.broken(f"{module}: not one printable line of at most {MOST_LINE}", told)
        if code != 2 and not (accepted and code in (0, 1)):
            tally.broken(f"{module}: exit code {code}", told)
        if cpu_s > MOST_S or grown_mb > MOST_BYTES / 2**20:
            tally.broken(f"{module}: {cpu_s:.1f} s, {grown_mb:.0f} MB", told)
        if contents(path) != before or (code == 2 and any(one.is_file() for one in out.rglob("*"))):
            tally.broken(f"{module}: wrote something", told)


def contents(path: Path) -> str:
    """A hash of a file, or of a folder's files."""
    digest = hashlib.sha256()
    for one in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if one.is_file():
            digest.update(one.read_bytes())
    return digest.hexdigest()


def run_main(module: str, argv: list[str], folder: Path) -> tuple[int, str, float, float]:
    """Exit code, what it says, processor time in s and memory in MB of a command whose imports are made.

    What it says is on stderr, or the verdict at the end of a table.
    """
    main = importlib.import_module(module).main
    out, err = folder / "stdout", folder / "stderr"
    child = os.fork()
    if child == 0:
        code: object = 70
        try:
            for number, path in ((1, out), (2, err)):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            limited()
            signal.alarm(60)
            code = main(argv)
        except SystemExit as ended:
            code = ended.code
        except BaseException:
            traceback.print_exc()
        os._exit(code if isinstance(code, int) else 70)
    here_kb = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024
    _, status, used = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    told = err.read_text(errors="replace") or "".join(out.read_text(errors="replace").splitlines(keepends=True)[-1:])
    return code, told, used.ru_utime + used.ru_stime, (used.ru_maxrss - here_kb) / 1024


def table(tallies: dict[str, Tally]) -> str:
    heads = zip(("reader", "inputs", "past 1st", "accepted", "slowest", "memory", "commands"), (-14, 7, 8, 8, 8, 7, 8))
    rows = [" ".join(f"{head:<14}" if width < 0 else f"{head:>{width}}" for head, width in heads) + " broken"]
    for name, one in tallies.items():
        past, accepted = (count / max(1, one.inputs) for count in (one.past_first, one.accepted))
        rows.append(
            f"{name:<14} {one.inputs:>7} {past:>8.0%} {accepted:>8.0%} {one.slowest_s:>6.2f} s "
            f"{one.most_mb:>4.0f} MB {one.commands:>8} {one.violations}"
        )
        rows += [f"    {text}" for text in one.examples]
    return "\n".join(rows)


def load(path: Path | None, names: Iterable[str], first_seed: int) -> dict[str, Tally]:
    """The sums so far, a reader that is new among them with nothing."""
    kept = json.loads(path.read_text()) if path is not None and path.exists() else {}
    return {name: Tally(**kept.get(name, {"first_seed": first_seed})) for name in names}


def save(tallies: dict[str, Tally], path: Path | None) -> None:
    if path is None:
        return
    kept = json.loads(path.read_text()) if path.exists() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        partial.write_text(json.dumps({**kept, **{name: asdict(one) for name, one in tallies.items()}}, indent=1))


def main(argv: list[str] | None = None) -> int:
    root = argparse.ArgumentParser(prog="hostile-files", description=__doc__)
    root.add_argument("--inputs", type=int, default=100_000, help="for each reader, in process (default %(default)s)")
    root.add_argument("--commands", type=int, default=500, help="for all of them together, through the real command")
    root.add_argument("--first-seed", type=int, default=0, help="of a reader's first batch; the next ones count on")
    root.add_argument("--add-to", type=Path, metavar="FILE", help="JSON in which the sums are kept; goes on from there")
    root.add_argument("--bundle", type=Path, help="a whole bundle, for the manifest")
    root.add_argument("--policy", type=Path, help="a policy folder of LeRobot")
    root.add_argument("--reader", action="append", help="only this one")
    args = root.parse_args(argv)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=memory) as scratch:
        chosen = {
            name: parser
            for name, parser in parsers(Path(scratch), args.bundle, args.policy).items()
            if not args.reader or name in args.reader
        }
        tallies, folder = load(args.add_to, chosen, args.first_seed), Path(scratch) / "work"
        parts = {
            name: args.commands // len(chosen) + (index < args.commands % len(chosen))
            for index, name in enumerate(chosen)
        }
        unfinished = set(chosen)
        while unfinished:
            for name in sorted(unfinished):
                folder.mkdir()
                if not one_round(chosen[name], tallies[name], args.inputs, parts[name], folder):
                    unfinished.remove(name)
                shutil.rmtree(folder)
                save(tallies, args.add_to)
    print(table(tallies))
    few = [name for name, one in tallies.items() if one.past_first < 0.3 * one.inputs]
    if few:
        print(f"too few get past the first check of {', '.join(few)}: the inputs prove little")
    return 1 if few or any(one.violations for one in tallies.values()) else 0


def one_round(parser: Parser, tally: Tally, inputs: int, commands: int, folder: Path) -> bool:
    """A batch in process and a batch of commands, where they are still to be done. Whether there was anything to do."""
    left, commands_left = min(BATCH, inputs - tally.inputs), min(COMMAND_BATCH, commands - tally.commands)
    if left > 0:
        number = tally.first_seed + tally.batches
        batch = forked(lambda: in_process(parser, left, number, folder), folder)
        tally.add(batch)
        tally.batches += 1
        if batch.inputs == 0:
            return False  # its process died, which is counted
    if commands_left > 0:
        batch = Tally()
        # Inputs of their own, none of those in process.
        through_command(parser, commands_left, -1 - tally.first_seed - tally.command_batches, folder, batch)
        tally.add(batch)
        tally.command_batches += 1
    return left > 0 or commands_left > 0


if __name__ == "__main__":
    sys.exit(main())
