"""Builds the source distribution and from it one wheel a processor, with the firmware's core compiled in.

The C is cross-compiled with `ziglang` from PyPI against glibc 2.28, the oldest that manylinux_2_28 allows: Debian 10,
Ubuntu 20.04 and JetPack 5 are newer. MuJoCo's headers come from the `sim` extra; its library is loaded at run time.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from firmware_bridge import __version__
from firmware_bridge.errors import BuildError
from firmware_bridge.native import NativeDevice, compile_device, mujoco_flags, record_origin

ROOT = Path(__file__).resolve().parents[1]
MACHINES = ("x86_64", "aarch64")
GLIBC = (2, 28)


def compiler(machine: str) -> list[str]:
    """The command of a C compiler for `machine`."""
    target = f"{machine}-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"
    return [sys.executable, "-m", "ziglang", "cc", "-target", target]


def compile_core(machine: str, folder: Path) -> NativeDevice:
    """Compiles the core for `machine` into `folder`. Raises `BuildError`."""
    headers = mujoco_flags()
    if not headers:
        raise BuildError("a wheel's core is compiled with MuJoCo's headers; pip install 'vla-edge[sim]'")
    compile_device(folder, ["-s", *headers], compiler=compiler(machine))
    device = NativeDevice(folder)
    record_origin(device, machine, f"zig {version('ziglang')} for glibc {GLIBC[0]}.{GLIBC[1]}")
    return device


def build_wheel(sources: Path, machine: str, out: Path) -> None:
    """A wheel of the source distribution `sources` for `machine`, in `out`. Raises `BuildError`."""
    with tempfile.TemporaryDirectory() as scratch:
        shutil.unpack_archive(sources, scratch)
        (project,) = Path(scratch).iterdir()
        compile_core(machine, project / "firmware_bridge" / "prebuilt")
        tag = f"--plat-name=manylinux_{GLIBC[0]}_{GLIBC[1]}_{machine}"
        run_build("--wheel", f"-C--build-option={tag}", "--outdir", str(out), str(project))


def run_build(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "build", *arguments], check=True, stdout=subprocess.DEVNULL)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("dist"), metavar="DIR")
    out = parser.parse_args().out.resolve()
    try:
        run_build("--sdist", "--outdir", str(out), str(ROOT))
        for machine in MACHINES:
            build_wheel(out / f"vla_edge-{__version__}.tar.gz", machine, out)
    except BuildError as error:
        print(f"wheels: {error}", file=sys.stderr)
        return 1
    print("\n".join(str(path) for path in sorted(out.iterdir())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
