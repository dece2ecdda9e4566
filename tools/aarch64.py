"""Runs a bundle on aarch64, the Jetson's processor, under QEMU's user emulation, and compares with this machine.

The same code on both: every engine against the bundle's own observations with FP32 torch's answers, then whole chunks
from seeded frames and histories; or with `--log` the chunks of a run from its logged pixels. Python comes from Debian,
the rest from PyPI's aarch64 wheels, all into `--cache`; the system is left as it is. QEMU says whether it works, not
how fast: this measures no speed.

Needs mmdebstrap and qemu-aarch64-static: sudo apt-get install mmdebstrap qemu-user-static
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from edge.arms import load_arm
from edge.bundle import load_bundle
from edge.engines import DEFAULT_ENGINE, open_engines
from edge.engines.parity import check_engine
from edge.errors import VlaEdgeError
from edge.policy.base import PolicyInput, open_policy

ROOT = Path(__file__).resolve().parents[1]
MIRROR, SUITE, PYTHON = "http://deb.debian.org/debian", "bookworm", "3.11"
PACKAGES = "python3-minimal,libpython3-stdlib,libstdc++6"
WHEELS = ("daqp>=0.8", "onnxruntime==1.22.1", "numpy<2.3", "tokenizers", "pyserial", "tqdm")
LOG_WHEELS = ("mcap>=1.6", "lz4", "zstandard", "Pillow")
"""ONNX Runtime 1.32 ends with a crash when it is imported under QEMU; 1.22.1 does not."""
TAGS = ("manylinux2014_aarch64", "manylinux_2_27_aarch64", "manylinux_2_28_aarch64")
CHUNKS = 4
LARGEST_DIFFERENCE_RAD = 1e-4


def fetch(cache: Path, wheels: tuple[str, ...] = WHEELS, folder: str = "packages") -> tuple[Path, Path]:
    """The root of an arm64 system with Python, and a folder of packages; downloaded once."""
    system, packages = cache / "system", cache / folder
    for program, package in (("mmdebstrap", "mmdebstrap"), ("qemu-aarch64-static", "qemu-user-static")):
        if shutil.which(program) is None:
            raise SystemExit(f"aarch64: needs {program}: sudo apt-get install {package}")
    cache.mkdir(parents=True, exist_ok=True)
    if not system.is_dir():
        command = ["mmdebstrap", "--quiet", "--architecture=arm64", "--variant=extract", f"--include={PACKAGES}"]
        mode = ["--mode=root"] if os.geteuid() == 0 else []
        subprocess.run([*command, *mode, SUITE, str(cache / "unpacking"), MIRROR], check=True)
        (cache / "unpacking").rename(system)
    if not packages.is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-warn-conflicts"]
        command += ["--only-binary=:all:", "--python-version", PYTHON]
        tags = [word for tag in TAGS for word in ("--platform", tag)]
        subprocess.run([*command, *tags, "--target", str(cache / "installing"), *wheels], check=True)
        (cache / "installing").rename(packages)
    return system, packages


def answers(folder: Path, arm: str, task: str, out: Path) -> int:
    """On either machine: checks the engines, and writes chunks in rad, (CHUNKS, horizon, joints), to `out`."""
    bundle = load_bundle(folder)
    for name, engine in open_engines(bundle, DEFAULT_ENGINE, 1).items():
        verdict = check_engine(bundle, name, engine, None)
        worst = max(held["relative_rms"] for held in verdict["worst"].values())
        print(f"{platform.machine()}  {name:<16} {worst:.1e} relative RMS against FP32 torch, {verdict['engine']}")
        if not verdict["passed"]:
            print(f"aarch64: {name} does not agree with FP32 torch: {verdict['worst']}", file=sys.stderr)
            return 1
    policy = open_policy(bundle, arm, task, 1)
    shape, joints, cameras = policy.shape, load_arm(arm).dof, bundle.manifest.cameras
    draw = np.random.default_rng(0)
    chunks = []
    for index in range(CHUNKS):
        observed = PolicyInput(
            frames=[draw.integers(0, 256, (*camera.frame_px, 3), dtype=np.uint8) for camera in cameras],
            states_rad=np.array(load_arm(arm).home_rad) + 0.02 * draw.standard_normal((shape.history, joints)),
            actions_rad=0.02 * draw.standard_normal((shape.history, joints)),
            mask=np.arange(shape.history) >= shape.history - 4 * index,
            prefix_rad=0.01 * draw.standard_normal((index, joints)),
            seed=(0, index),
        )
        chunks.append(policy.infer(observed).increments_rad)
    np.save(out, np.stack(chunks), allow_pickle=False)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=Path("demo/bundle"))
    parser.add_argument("--arm", default="franka")
    parser.add_argument("--task", default="reach the red cube")
    parser.add_argument("--cache", type=Path, default=Path("build/aarch64"), help="where what is downloaded stays")
    parser.add_argument("--log", type=Path, metavar="FILE.mcap", help="computes the chunks of this log again instead")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        try:
            return answers(args.bundle, args.arm, args.task, args.child)
        except VlaEdgeError as error:
            print(f"aarch64: {error}", file=sys.stderr)
            return error.exit_code
    system, packages = fetch(args.cache.resolve())
    roots = {"PYTHONHOME": str(system / "usr"), "PYTHONPATH": f"{packages}:{ROOT}"}
    emulated = ["qemu-aarch64-static", "-L", str(system), str(system / "usr/bin/python3"), "-S"]
    if args.log:
        _, more = fetch(args.cache.resolve(), LOG_WHEELS, "log-packages")
        roots["PYTHONPATH"] += f":{more}"
        again = ["-m", "edge.cli.run", "--replay", str(args.log), "--recompute", "--bundle", str(args.bundle)]
        for python, environment in (([sys.executable], {}), (emulated, roots)):
            code = subprocess.run([*python, *again], env={**os.environ, **environment}).returncode
            if code:
                return code
        return 0
    command = [__file__, "--bundle", str(args.bundle), "--arm", args.arm, "--task", args.task]
    with tempfile.TemporaryDirectory() as scratch:
        here, there = Path(scratch) / "here.npy", Path(scratch) / "there.npy"
        for python, environment, out in ((emulated, roots, there), ([sys.executable], {"PYTHONPATH": str(ROOT)}, here)):
            result = subprocess.run([*python, *command, "--child", str(out)], env={**os.environ, **environment})
            if result.returncode != 0:
                return result.returncode if result.returncode > 0 else 1
        difference = float(np.max(np.abs(np.load(there) - np.load(here))))
        print(f"{CHUNKS} chunks: at most {difference:.1e} rad between aarch64 and {platform.machine()}")
    return 0 if difference <= LARGEST_DIFFERENCE_RAD else 1


if __name__ == "__main__":
    sys.exit(main())
