"""Every benchmark, each in a process of its own so that none inherits another's memory or threads, and the report.

Makes bundles of the shipped checkpoint and of the paper's widths first (FP32 and INT8, calibrated on synthetic
observations), then measures, writes OUT/*.json, OUT/report.html, and with --markdown the tables of a page. --quick is a
smoke run in minutes. A machine that does something else meanwhile is noted in the report, by its load.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.document import notify
from edge.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
PAPER = ("--preset", "paper", "--layers", "4")
FAILED = 1
BUNDLES_AT_A_TIME = 2


@dataclass(frozen=True)
class Job:
    """One run of `edge-bench`; `file` is its JSON, without which it is a report of what others wrote."""

    arguments: tuple[str, ...]
    file: str = ""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("runs/bench"), metavar="DIR", help="default: %(default)s"
    )
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints" / "reach.pt", metavar="FILE")
    parser.add_argument("--markdown", type=Path, metavar="FILE.md", help="also write the tables into this page")
    parser.add_argument("--quick", action="store_true", help="a smoke run of each; its figures are not worth quoting")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these, such as loop link")


def jobs(out: Path, checkpoint: Path, quick: bool) -> list[Job]:
    """What is run, in order."""
    precisions = ("fp32",) if quick else ("fp32", "int8")
    shipped = tuple(word for name in precisions for word in ("--bundle", str(out / "bundles" / f"shipped-{name}")))
    paper = tuple(word for name in ("fp32", "int8") for word in ("--bundle", str(out / "bundles" / f"paper-{name}")))
    first = shipped[:2]
    sized = ("--preset", "tiny", "--precision", "fp32") if quick else (*PAPER, *paper)
    return [
        Job(("latency", *shipped, "--checkpoint", str(checkpoint)), "latency"),
        Job(("roofline", *sized), "roofline"),
        Job(("loop", *first), "loop"),
        Job(("link", "--clock"), "link"),
        Job(("closed-loop", *first), "closed-loop"),
        Job(("log",), "log"),
    ]


def run(args: argparse.Namespace) -> int:
    if not args.checkpoint.is_file():
        raise InputError(f"{args.checkpoint}: no such checkpoint; name one with --checkpoint")
    began_s = time.monotonic()
    args.out.mkdir(parents=True, exist_ok=True)
    todo = [job for job in jobs(args.out, args.checkpoint, args.quick) if not args.only or job.file in args.only]
    if not todo:
        raise InputError(f"--only {' '.join(args.only)}: name some of latency, roofline, loop, link, closed-loop, log")
    _make_bundles(args, todo)
    missed = []
    for job in todo:
        notify(f"--- {job.file}, {time.monotonic() - began_s:.0f} s after the start")
        code = _edge_bench([*job.arguments, "--json", str(args.out / f"{job.file}.json"), *["--quick"] * args.quick])
        if code == FAILED:
            missed.append(job.file)
        elif code:
            return code
    files = [str(args.out / f"{job.file}.json") for job in todo]
    if args.out / "latency.json" in map(Path, files) and _edge_bench(["check", str(args.out / "latency.json")]):
        missed.append("budget")
    page = [*files, "-o", str(args.out / "report.html")]
    if code := _edge_bench(["report", *page, *(["--markdown", str(args.markdown)] if args.markdown else [])]):
        return code
    notify(f"took {time.monotonic() - began_s:.0f} s; open {args.out / 'report.html'}")
    if missed:
        notify(f"missed: {', '.join(missed)}")
    return FAILED if missed else 0


def _make_bundles(args: argparse.Namespace, todo: list[Job]) -> None:
    """Those that the jobs name, each by a process that then goes away; an older one may be of another commit.

    Two are made at a time: most of that work keeps one core busy, and nothing is measured meanwhile.
    """

    def make(path: Path) -> int:
        source = list(PAPER) if path.name.startswith("paper") else ["--checkpoint", str(args.checkpoint)]
        notify(f"making {path}")
        return _edge_bench(["bundle", "-o", str(path), *source, "--precision", path.name.split("-")[1]])

    wanted = sorted({Path(word) for job in todo for word in job.arguments if Path(word).parent == args.out / "bundles"})
    with ThreadPoolExecutor(BUNDLES_AT_A_TIME) as pool:
        for path, code in zip(wanted, pool.map(make, wanted), strict=True):
            if code:
                raise InputError(f"{path} could not be made (exit {code}); the message stands above")


def _edge_bench(arguments: list[str]) -> int:
    """One `edge-bench` in a process of its own, which a Ctrl-C reaches too."""
    process = subprocess.Popen([sys.executable, "-m", "bench.cli", *arguments])
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.wait()
        raise
