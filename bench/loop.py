"""How punctual the control loop is, beside the loops that others ship, idle and under the load of inference.

Each loop does the same small work in a process of its own. They take turns, so that a noisy minute of the machine does
not fall on one of them alone. A step is late by what it begins after its place on the grid `first + n * period`, where
a loop that skips a place says so (ours counts it; the others know no grid, so their n is the number of the step). An
overrun is a step that begins two periods or more after the one before.

The others come from PyPI without their dependencies:
  pip install --no-deps openpi-client==0.1.2 lerobot==0.4.4
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from bench import options
from bench.document import Recording, notify
from bench.harness import median_interval
from bench.load import inference_load
from bench.loops import Times
from bench.policy_run import Runner
from bench.tables import markdown, number, spread
from edge.cli.parser import count
from edge.realtime.rights import cpus_here

PACKAGES = {"openpi-client": ("openpi-client", "0.1.2"), "lerobot": ("lerobot", "0.4.4")}
OURS = "vla-edge"
BOUNDARY = "when each step of the loop began, by the monotonic clock, read as the first thing in the step"
MOST_SAMPLES = 20_000


def configure(parser: argparse.ArgumentParser) -> None:
    options.add_models(parser)
    parser.add_argument(
        "--rate", type=float, nargs="+", default=[250.0, 1000.0], metavar="HZ", help="default: 250 1000"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="per loop and case, over all rounds")
    parser.add_argument("--rounds", type=count, default=5, help="turns per loop (default %(default)d)")
    parser.add_argument("--case", nargs="+", choices=("idle", "loaded"), default=["idle", "loaded"])
    options.add_common(parser)


def run(args: argparse.Namespace) -> int:
    if args.quick:
        args.seconds, args.rounds = 1.0, 2
    settings = {"seconds": args.seconds, "rounds": args.rounds, "rates_hz": args.rate}
    recording = Recording("loop", settings, args.quick)
    loops = _installed(recording)
    cases = []
    with ExitStack() as stack:
        bundle = None
        if "loaded" in args.case:
            args.precision = ["fp32"]
            bundle = next(iter(stack.enter_context(options.bundles(args, recording)).values())).path
        for rate_hz in args.rate:
            for case in args.case:
                notify(f"{rate_hz:g} Hz, {case}: {', '.join(loops)}")
                cases.append(_case(loops, rate_hz, bundle if case == "loaded" else None, args))
    recording.body = {"boundary": BOUNDARY, "cases": cases}
    print("\n".join(lines(recording.body)))
    options.finish(args, recording)
    return 0


def _installed(recording: Recording) -> list[str]:
    """Loops that can be run here. Another version than the one that was looked at is not it."""
    found = [OURS]
    for name, (package, version) in PACKAGES.items():
        try:
            here = metadata.version(package)
        except metadata.PackageNotFoundError:
            here = None
        if here == version:
            found.append(name)
        else:
            why = f"version {here} is installed" if here else "it is not installed"
            recording.leave_out(f"{name}'s loop", f"{why}; pip install --no-deps {package}=={version}")
    return found


def _case(loops: list[str], rate_hz: float, load: Path | None, args: argparse.Namespace) -> dict[str, Any]:
    """All loops at one rate, in turns."""
    rounds: dict[str, list[Times]] = {name: [] for name in loops}
    with ExitStack() as stack:
        if load is not None:
            stack.enter_context(inference_load(load, Runner(args.arm, args.task), cpus_here().others))
        for turn in range(args.rounds):
            for name in loops[turn % len(loops) :] + loops[: turn % len(loops)]:
                rounds[name].append(measure(name, rate_hz, args.seconds / args.rounds))
    found: dict[str, Any] = {name: figures(taken, rate_hz) for name, taken in rounds.items()}
    ours = np.array([round_p99_us(times, rate_hz) for times in rounds[OURS]])
    for name in loops:
        if name != OURS:
            theirs = np.array([round_p99_us(times, rate_hz) for times in rounds[name]])
            found[name]["p99_to_ours"] = median_interval(theirs / np.maximum(ours, 1.0), args.seed).to_plain()
    return {"rate_hz": rate_hz, "loaded": load is not None, "loops": found}


def measure(name: str, rate_hz: float, seconds: float) -> Times:
    """One round of one loop in a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "begins.npy"
        arguments = [name, "--rate", str(rate_hz), "--seconds", str(seconds), "--out", str(out)]
        subprocess.run([sys.executable, "-m", "bench.loops", *arguments], check=True)
        begins: Times = np.load(out, allow_pickle=False)
    return begins


def lateness_ns(times: Times, rate_hz: float) -> np.ndarray:
    """How late each step of a round began, against the grid of its first step."""
    return times[:, 0] - times[0, 0] - 1e9 / rate_hz * (times[:, 1] - times[0, 1])


def round_p99_us(times: Times, rate_hz: float) -> float:
    return float(np.percentile(lateness_ns(times, rate_hz), 99)) / 1000


def figures(rounds: list[Times], rate_hz: float) -> dict[str, Any]:
    """Percentiles of lateness and of the period's error in us, overruns in percent, drift in us per second."""
    period_ns = 1e9 / rate_hz
    lates = [lateness_ns(times, rate_hz) for times in rounds]
    tails_us = [float(np.median(late[-len(late) // 10 :])) / 1000 for late in lates]
    periods = np.concatenate([np.diff(times[:, 0]) for times in rounds])
    late, error = np.concatenate(lates), np.abs(periods - period_ns)
    seconds = sum(map(len, rounds)) / rate_hz
    raw = np.concatenate([np.rint(one / 1000) for one in lates]).astype(int)
    return {
        "steps": int(sum(map(len, rounds))),
        **{f"late_p{name}_us": _percentile_us(late, float(name)) for name in ("50", "95", "99", "99.9")},
        "late_max_us": round(float(late.max()) / 1000, 1),
        "period_error_p50_us": _percentile_us(error, 50),
        "period_error_p99_us": _percentile_us(error, 99),
        "overruns_percent": round(100 * float(np.mean(periods >= 2 * period_ns)), 4),
        "drift_us_per_s": round(sum(tails_us) / seconds, 2),
        "raw_late_us": raw[:MOST_SAMPLES].tolist(),
        "raw_left_out": max(0, len(raw) - MOST_SAMPLES),
    }


def _percentile_us(values_ns: np.ndarray, percent: float) -> float:
    return round(float(np.percentile(values_ns, percent)) / 1000, 1)


def lines(body: dict[str, Any]) -> list[str]:
    """The table, as Markdown."""
    head = (
        "rate",
        "load",
        "loop",
        "late p50, us",
        "p95",
        "p99",
        "p99.9",
        "max",
        "overruns",
        "drift, us/s",
        "p99 to ours",
    )
    rows = []
    for case in body["cases"]:
        for name, found in case["loops"].items():
            keys = ("late_p50_us", "late_p95_us", "late_p99_us", "late_p99.9_us", "late_max_us")
            rows.append(
                [
                    f"{case['rate_hz']:g} Hz",
                    "inference" if case["loaded"] else "idle",
                    name,
                    *(number(found[key]) for key in keys),
                    f"{number(found['overruns_percent'])} %",
                    number(found["drift_us_per_s"]),
                    spread(found["p99_to_ours"]) if "p99_to_ours" in found else "1",
                ]
            )
    return markdown(head, rows)
