"""Mutation testing of the firmware core: every small change to its code must make a test of the bridge fail.

`python tools/mutate_core.py` makes each mutant in turn, compiles it and runs the tests until one fails. Mutants that
nothing can tell from the original stand in `tools/equivalent_mutants.txt`, each with its reason; any other survivor is
a failure. `--sample N --seed S` runs N of them, drawn from the seed. `tools/dropped_guards.toml` holds mutants made by
hand, each with a guard that is no longer where it should be; those run every time.

Tests run in forks of one process that has imported them already, so that a mutant costs a compilation of one file and
the tests until the first failure, those of the changed file first.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import tomllib
from tqdm import tqdm

from firmware_bridge.native import FIRMWARE, FLAGS, FUZZ, OVERRIDE, PORT, firmware_hash

ROOT = Path(__file__).resolve().parents[1]
CORE = FIRMWARE / "core"
GUARDS = ROOT / "tools" / "dropped_guards.toml"
EQUIVALENT = ROOT / "tools" / "equivalent_mutants.txt"
CPU_S = 60
"""What the tests may take of a processor, several times what they take on the unchanged core."""
HANG_S = 600
TRAPS = (
    "-fsanitize=undefined,bounds-strict,float-cast-overflow",
    "-fsanitize-undefined-trap-on-error",
    "-fstack-protector-all",
    "-ftrivial-auto-var-init=pattern",
)
"""What the sanitizers would report ends the process, and what is read before it is written is no lucky zero."""
TESTS = {
    "frame.c": "tests/firmware_bridge/test_golden_frames.py",
    "plan.c": "tests/firmware_bridge/test_plan.py",
    "limiter.c": "tests/firmware_bridge/test_limiter_steps.py",
    "window.c": "tests/firmware_bridge/test_window.py",
    "states.c": "tests/firmware_bridge/test_device_core.py",
    "reports.c": "tests/firmware_bridge/test_device_core.py",
    "transitions.c": "tests/firmware_bridge/test_device_core.py",
    "handlers.c": "tests/firmware_bridge/test_device_core.py",
    "device.c": "tests/firmware_bridge/test_device_core.py",
}
"""Where a mutant of a unit is most likely to be found out. The others follow."""
GUARD_TESTS = "tests/firmware_bridge/test_every_state.py"
"""The same of a guard that was dropped by hand."""
MORE_TESTS = (
    "tests/firmware_bridge/test_behaviour.py",
    "tests/test_vectors.py",
    "tests/firmware_bridge/test_refusals.py",
    "tests/firmware_bridge/test_device.py",
    "tests/firmware_bridge/test_limiter.py",
    GUARD_TESTS,
    "tests/firmware_bridge/test_state_machine.py",
)
"""Those that take longest come last."""
PYTEST = ("-x", "-q", "-p", "no:cacheprovider", "-p", "_hypothesis_pytestplugin", "--hypothesis-seed=0")
PRELOADED = (
    "pytest",
    "hypothesis",
    "numpy",
    "ruckig",
    "edge.run.session",
    "firmware_bridge.client",
    "firmware_bridge.simulator",
    "_hypothesis_pytestplugin",
)
"""What takes long to import, and holds nothing of the core."""

SWAPS = {
    "==": ("!=",),
    "!=": ("==",),
    "<": ("<=", ">="),
    "<=": ("<", ">"),
    ">": (">=", "<="),
    ">=": (">", "<"),
    "&&": ("||",),
    "||": ("&&",),
    "+": ("-",),
    "-": ("+",),
    "*": ("/",),
    "/": ("*",),
    "%": ("*",),
    "<<": (">>",),
    ">>": ("<<",),
    "&": ("|",),
    "|": ("&",),
    "^": ("|",),
    "+=": ("-=", "="),
    "-=": ("+=", "="),
    "*=": ("/=",),
    "|=": ("=", "&="),
    "^=": ("=",),
    "++": ("--",),
    "--": ("++",),
    "!": ("",),
    "~": ("",),
    "true": ("false",),
    "false": ("true",),
    "fmin": ("fmax",),
    "fmax": ("fmin",),
    "fabs": ("",),
}
TOKEN = re.compile(
    r"""(?P<skip>/\*.*?\*/|\#\s*include[^\n]*|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|->|[A-Za-z_]\w*\s*\*(?=\s*(?:\w+\s*[,)=;]|const)))"""
    r"""|(?P<number>(?<![\w.])(?:0[xX][0-9A-Fa-f]+|\d+\.\d+(?:[eE][+-]?\d+)?|\d+(?:[eE][+-]?\d+)?)[uU]?(?![\w.]))"""
    r"""|(?P<word>[A-Za-z_]\w*)"""
    r"""|(?P<operator>\+\+|--|&&|\|\||<<|>>|[-+*|^]=|==|!=|<=|>=|[-+*/%&|^!~<>])""",
    re.DOTALL,
)

STATEMENT = re.compile(
    r"^ +((?! |\(void\)\w+;|return\b|const\b|static\b|typedef\b|u?int\w*_t |double |bool |ve_\w+_t "
    r"|(?:for|if|while|else|case)\b)"
    r"(?:break|continue|[^\n;{}]*(?:=|\(|\+\+|--)[^\n;{}]*));",
    re.M,
)
"""Assignments, calls and jumps on a line of their own. Without a declaration or a return it would not be C, and without
a cast to void it would be the same."""


@dataclass(frozen=True)
class Mutant:
    """One change of one file: `old` at `at` becomes `new`."""

    unit: str
    at: int
    old: str
    new: str
    line: int
    text: str
    guard: str = ""
    """What no longer holds, of a mutant made by hand."""

    @property
    def first_test(self) -> str:
        """Where it is most likely to be found out."""
        return GUARD_TESTS if self.guard else TESTS[self.unit]

    @property
    def name(self) -> str:
        """What the list of equivalent mutants knows it by: the text of its line, since numbers move with any edit."""
        if self.guard:
            return f"{self.unit}: {self.guard}"
        return f"{self.unit}: `{self.text}`: `{self.old}` -> `{self.new}` #{self.column}"

    @property
    def column(self) -> int:
        """Where in its line the change is."""
        source = (CORE / self.unit).read_text()
        return self.at - (source.rfind("\n", 0, self.at) + 1)


def mutants_of(unit: str) -> Iterator[Mutant]:
    """All mutants of one file: operators swapped, constants moved, statements dropped."""
    source = (CORE / unit).read_text()
    lines = source.split("\n")

    def mutant(at: int, old: str, new: str) -> Mutant:
        line = source.count("\n", 0, at)
        return Mutant(unit, at, old, new, line + 1, lines[line].strip())

    for match in TOKEN.finditer(source):
        token = match.group()
        if match["skip"]:
            continue
        if match["number"]:
            yield from (mutant(match.start(), token, new) for new in moved(token))
        elif _is_type_star(source, match):
            continue
        else:
            yield from (mutant(match.start(), token, new) for new in SWAPS.get(token, ()))
    for match in STATEMENT.finditer(source):
        yield mutant(match.start(1), match.group(1), "")


def dropped_guards() -> list[Mutant]:
    """The mutants made by hand. Raises `SystemExit` when the text of one stands nowhere, or in several places."""
    found = []
    for entry in tomllib.loads(GUARDS.read_text())["guard"]:
        unit, old = entry["unit"], entry["old"]
        source = (CORE / unit).read_text()
        if source.count(old) != 1:
            raise SystemExit(
                f"dropped_guards.toml: '{entry['name']}': its text stands {source.count(old)} times in {unit}"
            )
        at = source.index(old)
        found.append(Mutant(unit, at, old, entry["new"], source.count("\n", 0, at) + 1, "", entry["name"]))
    return found


def moved(number: str) -> list[str]:
    """The constant, a little larger and a little smaller."""
    suffix = "u" if number[-1] in "uU" else ""
    bare = number.rstrip("uU")
    if re.fullmatch(r"\d+", bare):
        value = int(bare)
        return [f"{value + 1}{suffix}"] + ([f"{value - 1}{suffix}"] if value > 0 else [])
    if bare[:2] in ("0x", "0X"):
        return [f"0x{int(bare, 16) ^ 1:X}{suffix}"]
    value = float(bare)
    return [repr(value * 1.5 if value else 0.5), repr(value * 0.5 if value else -0.5)]


def _is_type_star(source: str, match: re.Match[str]) -> bool:
    """A `*` or `&` that belongs to a pointer and not to an expression."""
    if match.group() not in "*&":
        return False
    before, after = source[: match.start()].rstrip(), source[match.end() :]
    binary = bool(re.search(r"[\w)\]]$", before)) and not re.search(r"\b(return|const|static)$", before)
    return not (binary and after.startswith(" "))


def equivalent() -> dict[str, str]:
    """Names of the mutants that nothing can tell from the original, with the reason."""
    found = {}
    if EQUIVALENT.exists():
        for line in EQUIVALENT.read_text().splitlines():
            if line and not line.startswith("#"):
                name, reason = line.split(" -- ", 1)
                found[name.strip()] = reason.strip()
    return found


class Builder:
    """Objects of the unchanged files, linked with one changed file at a time."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.flags = [*FLAGS, *TRAPS, "-O1", "-w", f"-DVE_FIRMWARE_HASH=0x{firmware_hash():08x}u", f"-I{CORE}"]
        port = [path for path in PORT.glob("*.c") if path.name != "main.c"]
        sources = [*CORE.glob("*.c"), *port, FUZZ / "fuzz_device.c"]
        self.only_in = {"libreplay.so": {"fuzz_device.c"}, "libbridge_sim.so": {path.name for path in port}}
        self.objects = {path.name: folder / f"{path.stem}.o" for path in sources}
        for path in sources:
            subprocess.run(["cc", *self.flags, "-c", str(path), "-o", str(self.objects[path.name])], check=True)

    def build(self, mutant: Mutant | None, target: Path) -> bool:
        """Links the library with the mutant into `target`; False when the compiler refuses it."""
        target.mkdir()
        objects = dict(self.objects)
        if mutant is not None:
            source = (CORE / mutant.unit).read_text()
            changed = source[: mutant.at] + mutant.new + source[mutant.at + len(mutant.old) :]
            path = target / mutant.unit
            path.write_text(changed)
            objects[mutant.unit] = target / "changed.o"
            command = ["cc", *self.flags, "-c", str(path), "-o", str(objects[mutant.unit])]
            if subprocess.run(command, capture_output=True).returncode != 0:
                return False
        for library in self.only_in:
            others = set().union(*(units for name, units in self.only_in.items() if name != library))
            linked = [str(path) for name, path in objects.items() if name not in others]
            command = ["cc", "-shared", *linked, "-o", str(target / library), "-lm"]
            if subprocess.run(command, capture_output=True).returncode != 0:
                return False
        return True


def run_tests(folder: Path, first: str) -> str:
    """Runs the tests in a fork against the library in `folder`: "killed", "survived" or "timeout"."""
    others = [test for test in dict.fromkeys((*TESTS.values(), *MORE_TESTS)) if test != first]
    child = os.fork()
    if child == 0:
        code = 99
        with contextlib.suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))  # not wall time: this machine may be busy
            os.environ.update({OVERRIDE: str(folder), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"})
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 1)
            os.dup2(null, 2)
            import pytest

            code = pytest.main([*PYTEST, first])
            if code == 0 and others:
                code = pytest.main([*PYTEST, *others])
        os._exit(int(code))
    deadline = time.monotonic() + HANG_S
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            return "survived" if code == 0 else "timeout" if code in (-signal.SIGXCPU, -signal.SIGKILL) else "killed"
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)


def judge(mutants: list[Mutant], workers: int) -> dict[str, list[Mutant]]:
    """Runs every mutant; returns them by verdict: "killed", "survived", "timeout", "not C"."""
    for module in PRELOADED:
        importlib.import_module(module)
    verdicts: dict[str, list[Mutant]] = {"killed": [], "survived": [], "timeout": [], "not C": []}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        builder = Builder(folder)
        if not builder.build(None, folder / "original"):
            raise SystemExit("mutate_core: the unchanged core is not C")

        def one(item: tuple[int, Mutant]) -> tuple[Mutant, str]:
            number, mutant = item
            target = folder / str(number)
            verdict = run_tests(target, mutant.first_test) if builder.build(mutant, target) else "not C"
            shutil.rmtree(target)
            return mutant, verdict

        with ThreadPoolExecutor(workers) as pool, tqdm(total=len(mutants), unit="mutant", disable=None) as bar:
            unchanged = pool.submit(run_tests, folder / "original", GUARD_TESTS)
            for mutant, verdict in pool.map(one, enumerate(mutants)):
                verdicts[verdict].append(mutant)
                bar.update()
                bar.set_postfix(survived=len(verdicts["survived"]), refresh=False)
            if unchanged.result() != "survived":
                raise SystemExit("mutate_core: the tests fail on the unchanged core")
    return verdicts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, help="only so many mutants, drawn from the seed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="only mutants whose name contains this")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="write the verdicts here as well")
    args = parser.parse_args()
    excused = equivalent()
    everything = [mutant for unit in TESTS for mutant in mutants_of(unit)]
    made = Counter(mutant.name for mutant in everything)
    stale = [name for name in excused if made[name] != 1]
    if stale:
        print("equivalent_mutants.txt: each line must name one mutant; these name none, or several:")
        print("\n".join(stale))
        return 1
    mutants = [mutant for mutant in everything if mutant.name not in excused]
    if args.only:
        mutants = [mutant for mutant in mutants if args.only in mutant.name]
    if args.sample is not None:
        mutants = random.Random(args.seed).sample(mutants, min(args.sample, len(mutants)))
    mutants += [mutant for mutant in dropped_guards() if not args.only or args.only in mutant.name]
    verdicts = judge(mutants, args.workers)
    if args.json:
        args.json.write_text(json.dumps({key: [m.name for m in value] for key, value in verdicts.items()}, indent=1))
    for mutant in verdicts["survived"]:
        print(f"survived: {mutant.name} (line {mutant.line})")
    counts = ", ".join(f"{len(value)} {key}" for key, value in verdicts.items())
    print(f"{len(mutants)} mutants: {counts}; {len(excused)} equivalent")
    return 1 if verdicts["survived"] else 0


if __name__ == "__main__":
    sys.exit(main())
