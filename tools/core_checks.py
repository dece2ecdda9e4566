"""Checks of the firmware core that need a build of their own: coverage, and the sanitizers.

`coverage` fails unless the tests of the bridge reach every line and every branch of the core. `sanitize` runs them
against a core built with the address and undefined-behaviour sanitizers, which end the run at the first finding.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from firmware_bridge.native import OVERRIDE, compile_device, compile_replay
from tools import mutate_core

ROOT = Path(__file__).resolve().parents[1]
CORE = "firmware_bridge/firmware/core/"
WHOLE = ("tests/firmware_bridge/test_stop_bounds.py", "tests/edge/run/test_controller.py")
"""What moves an arm with the core."""
TESTS = tuple(dict.fromkeys((*mutate_core.TESTS.values(), *mutate_core.MORE_TESTS)))
"""Those that every mutant of the core has to get past; they reach every line and branch by themselves."""
SEED = "--hypothesis-seed=0"
"""The same examples every time: a gate must not depend on luck."""
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g", "-O1")


def run_tests(folder: Path, extra: dict[str, str], *more: str) -> int:
    """Runs the tests of the bridge, and `more`, against the build in `folder`."""
    environment = {**os.environ, OVERRIDE: str(folder), **extra}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", SEED, "-m", "not slow", *TESTS, *more], cwd=ROOT, env=environment
    ).returncode


def coverage(folder: Path) -> int:
    """Every line and every branch, or 1."""
    flags = ("--coverage", "-O0", "-fprofile-update=atomic")
    compile_device(folder, flags)
    compile_replay(folder, flags)
    code = run_tests(folder, {})
    if code != 0:
        return code
    command = [sys.executable, "-m", "gcovr", "--root", str(ROOT), "--object-directory", str(folder)]
    command += ["--filter", CORE, "--txt", "-", "--txt-metric", "branch"]
    command += ["--fail-under-line", "100", "--fail-under-branch", "100", str(folder)]
    return subprocess.run(command, cwd=ROOT).returncode


def sanitize(folder: Path) -> int:
    """No report of either sanitizer, or 1."""
    compile_device(folder, SANITIZERS)
    compile_replay(folder, SANITIZERS)
    library = subprocess.run(["cc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    # Python itself is not instrumented: the runtime has to be there before it, and its leaks are not ours.
    return run_tests(folder, {"LD_PRELOAD": library.stdout.strip(), "ASAN_OPTIONS": "detect_leaks=0"}, *WHOLE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("check", choices=("coverage", "sanitize"))
    check = {"coverage": coverage, "sanitize": sanitize}[parser.parse_args().check]
    with tempfile.TemporaryDirectory() as folder:
        return 1 if check(Path(folder)) else 0


if __name__ == "__main__":
    sys.exit(main())
