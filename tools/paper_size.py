"""Exports and verifies the policy at the paper's size, with random weights, and measures what that takes.

`python tools/paper_size.py --out runs/paper` needs 16 GB of memory and 25 GB of disk, and removes the bundle again.
Wall time and memory are those of `edge-export` as a user would call it, watched from outside once a second.
`--build` also builds the graphs with TensorRT-RTX for SM 86, 89 and 120, which takes three times the memory of the
largest graph's weights: 25 GB in FP32.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

LONGEST_S, LARGEST_BYTES = 15 * 60, 16 * 2**30


def watched(command: list[str]) -> dict[str, Any]:
    """Runs a command; returns its exit code, wall time and peak memory.

    Resident memory counts pages of files that are only mapped, and that the system may drop; `peak_own_bytes` does not.
    """
    started, peak, own = time.monotonic(), 0, 0
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.Popen(command)
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        found = dict(line.split()[:2] for line in status.splitlines() if line.startswith(("VmRSS", "RssAnon")))
        peak, own = max(peak, 1024 * int(found.get("VmRSS:", 0))), max(own, 1024 * int(found.get("RssAnon:", 0)))
        time.sleep(1)
    wall_s = time.monotonic() - started
    exit_code, used = process.wait(), resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    return {"exit_code": exit_code, "wall_s": wall_s, "cpu_s": cpu_s, "peak_rss_bytes": peak, "peak_own_bytes": own}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/paper"))
    parser.add_argument("--precision", choices=("fp32", "bf16", "int8"), default="fp32")
    parser.add_argument("--samples", type=int, default=2, help="observations to verify on (default %(default)d)")
    parser.add_argument("--build", action="store_true", help="build with TensorRT-RTX as well")
    parser.add_argument("--keep", action="store_true", help="leave the bundle there")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    bundle = args.out / args.precision
    export = [sys.executable, "-m", "export.commands.export", "--preset", "paper", "--precision", args.precision]
    report: dict[str, Any] = {"export": watched([*export, "--samples", str(args.samples), "-o", str(bundle)])}
    if (bundle / "verification.json").is_file():
        report["verification"] = json.loads((bundle / "verification.json").read_text())
    if args.build and report["export"]["exit_code"] == 0:
        build = [sys.executable, "-m", "edge.cli.build", str(bundle), "--sm", "86,89,120"]
        report["build"] = watched([*build, "--cache", str(args.out / "tensorrt")])
    (args.out / f"paper_{args.precision}.json").write_text(json.dumps(report, indent=2) + "\n")
    for step in ("export", "build"):
        if step in report:
            found = report[step]
            own, resident = found["peak_own_bytes"] / 2**30, found["peak_rss_bytes"] / 2**30
            print(f"{step}: exit code {found['exit_code']}, {found['wall_s']:.0f} s ({found['cpu_s']:.0f} s of CPU)")
            print(f"{step}: {own:.1f} GB of its own, {resident:.1f} GB with mapped files, at most")
    if not args.keep:
        shutil.rmtree(bundle, ignore_errors=True)
        shutil.rmtree(args.out / "tensorrt", ignore_errors=True)
    found = report["export"]
    within = found["wall_s"] <= LONGEST_S and found["peak_own_bytes"] <= LARGEST_BYTES
    return 0 if within and all(report[step]["exit_code"] == 0 for step in ("export", "build") if step in report) else 1


if __name__ == "__main__":
    sys.exit(main())
