"""Coverage-guided fuzzing of the firmware core: the frame parser, and the whole device under an observer.

`--seconds N` runs each target for so long, `--runs N` that many inputs in all; both start from the committed corpus.
`--keep` adds inputs that reach something new to it, and `--add FILE ...` the inputs in these files. The first finding
ends the run, is written to disk, and makes the exit code 1. Needs clang with libFuzzer.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.native import FIRMWARE
from firmware_bridge.replay import CORPUS, read_corpus, unpack_corpus

SOURCES = FIRMWARE / "fuzz"
TARGETS = {"frame": 600, "device": 500}
"""Targets and the longest input of each, in bytes."""
SHARE_OF_DEVICE = 0.1
"""Of `--runs`: an input of the device is hundreds of ticks, one of the parser a few frames."""
FLAGS = ("-std=c99", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off", "-fno-omit-frame-pointer")
SANITIZERS = ("-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")


@dataclass(frozen=True)
class Campaign:
    """How one target is run; `seconds` or `runs` is 0 for no limit."""

    target: str
    seconds: int
    runs: int
    seed: int
    workers: int


def build(target: str, folder: Path) -> Path:
    """Compiles one target. Exits with what is missing."""
    compiler = shutil.which("clang") or next(
        filter(None, map(shutil.which, (f"clang-{n}" for n in range(21, 13, -1)))), None
    )
    if compiler is None:
        raise SystemExit("fuzz: needs clang with libFuzzer: sudo apt-get install clang libclang-rt-14-dev")
    program = folder / target
    units = [str(path) for path in sorted((FIRMWARE / "core").glob("*.c"))] + [str(SOURCES / f"fuzz_{target}.c")]
    command = [compiler, *FLAGS, *SANITIZERS, f"-I{FIRMWARE / 'core'}", *units, "-o", str(program), "-lm"]
    subprocess.run(command, check=True)
    return program


def run(campaign: Campaign, program: Path, corpus: Path, findings: Path) -> int:
    """Runs one target in `workers` processes; returns how many inputs were tried, -1 after a finding."""
    processes = []
    for worker in range(campaign.workers):
        command = [str(program), f"-max_len={TARGETS[campaign.target]}", f"-seed={campaign.seed + 1 + worker}"]
        command += [
            f"-artifact_prefix={findings}/{campaign.target}-",
            "-print_final_stats=1",
            "-close_fd_mask=1",
            "-timeout=20",
        ]
        command += [f"-max_total_time={campaign.seconds}"] if campaign.seconds else []
        command += [f"-runs={campaign.runs // campaign.workers}"] if campaign.runs else []
        log = (program.parent / f"{campaign.target}-{worker}.log").open("w+")
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
        processes.append((subprocess.Popen([*command, str(corpus)], stdout=log, stderr=log, env=environment), log))
    tried, failed = 0, False
    for process, log in processes:
        code = process.wait()
        log.seek(0)
        text = log.read()
        log.close()
        found = re.search(r"number_of_executed_units:\s*(\d+)", text)
        tried += int(found.group(1)) if found else 0
        if code != 0:
            failed = True
            lines = [line for line in text.splitlines() if re.search(r"^fuzz_|ERROR|runtime error|Test unit", line)]
            print("\n".join(lines[:6]) or text[-2000:], file=sys.stderr)
    return -1 if failed else tried


def fuzz(campaign: Campaign, keep: bool, findings: Path) -> bool:
    """One target from build to summary; True when nothing was found."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        program = build(campaign.target, folder)
        corpus = folder / "corpus"
        started = len(unpack_corpus(campaign.target, corpus))
        tried = run(campaign, program, corpus, findings)
        if keep and tried >= 0:
            merged = folder / "merged"
            merged.mkdir()
            subprocess.run([str(program), "-merge=1", str(merged), str(corpus)], check=True, capture_output=True)
            write_corpus(campaign.target, (path.read_bytes() for path in merged.iterdir()))
    if tried < 0:
        print(f"{campaign.target}: a finding; its input is in {findings}")
        return False
    print(
        f"{campaign.target}: {tried:,} inputs from {started} in the corpus, seed {campaign.seed}, no finding",
        flush=True,
    )
    return True


def write_corpus(target: str, inputs: Iterable[bytes]) -> None:
    """Replaces the committed inputs of a target."""
    lines = sorted({data.hex() for data in inputs}, key=lambda line: hashlib.sha1(bytes.fromhex(line)).hexdigest())
    (CORPUS / f"{target}.hex").write_text("".join(f"{line}\n" for line in lines))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; default: all")
    length = parser.add_mutually_exclusive_group(required=True)
    length.add_argument("--seconds", type=int, default=0)
    length.add_argument("--runs", type=int, default=0)
    length.add_argument("--add", type=Path, nargs="+", metavar="FILE", help="add these inputs to the corpus of TARGET")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--keep", action="store_true", help="add to the committed corpus what reached something new")
    parser.add_argument(
        "--findings", type=Path, default=Path("fuzz-findings"), help="where inputs that fail are written"
    )
    args = parser.parse_args()
    unknown = set(args.targets) - set(TARGETS)
    if unknown:
        parser.error(f"unknown target {', '.join(sorted(unknown))}")
    targets = args.targets or list(TARGETS)
    if args.add:
        if len(targets) != 1:
            parser.error("--add needs one target")
        write_corpus(targets[0], [*read_corpus(targets[0]).values(), *(path.read_bytes() for path in args.add)])
        return 0
    args.findings.mkdir(exist_ok=True)
    clean = True
    for target in targets:
        share = 1.0 if len(targets) == 1 else SHARE_OF_DEVICE if target == "device" else 1 - SHARE_OF_DEVICE
        campaign = Campaign(target, args.seconds, round(args.runs * share), args.seed, args.workers)
        clean = fuzz(campaign, args.keep, args.findings.resolve()) and clean
    if not any(args.findings.iterdir()):
        args.findings.rmdir()
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
