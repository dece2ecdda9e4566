"""Compiles the firmware for this machine: the simulated device as a program and as a shared library."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.errors import BuildError

FIRMWARE = Path(__file__).parent / "firmware"
PORT = FIRMWARE / "ports" / "host"
FUZZ = FIRMWARE / "fuzz"
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-ffp-contract=off")
"""No contraction into fused operations: host and device must compute the same from the same numbers."""
PREBUILT = "VLA_EDGE_NATIVE"
"""Names a folder made by `compile_device` to use in place of what would be built: instrumented builds for tests."""


@dataclass(frozen=True)
class NativeDevice:
    """Paths of what was built, and whether MuJoCo stands behind it."""

    program: Path
    library: Path
    mujoco: bool


def sources() -> list[Path]:
    """All C sources and headers of the core and the host port, in a fixed order."""
    folders = (FIRMWARE / "core", PORT)
    return sorted(path for folder in folders for path in folder.glob("*.[ch]"))


def firmware_hash() -> int:
    """32 bits over the core's sources: what CAPS states as the firmware's identity."""
    digest = hashlib.sha256()
    for path in sorted((FIRMWARE / "core").glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return int.from_bytes(digest.digest()[:4], "big")


def build(mujoco: bool) -> NativeDevice:
    """Compiles unless that has been done for these sources. Raises `BuildError`."""
    prebuilt = os.environ.get(PREBUILT)
    if prebuilt and not mujoco:
        return _in(Path(prebuilt), mujoco)
    extra = _mujoco_flags() if mujoco else []
    digest = hashlib.sha256(repr((FLAGS, extra)).encode())
    for path in sources():
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    folder = _cache() / digest.hexdigest()[:16]
    if not folder.is_dir():
        _compile_once(folder, extra)
    return _in(folder, mujoco)


def compile_device(folder: Path, extra: Sequence[str] = (), core: Path = FIRMWARE / "core") -> None:
    """Compiles program and library into `folder`, with further flags and from `core`. Raises `BuildError`."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        raise BuildError("the simulated device needs a C compiler: sudo apt-get install gcc libc6-dev")
    folder.mkdir(parents=True, exist_ok=True)
    units = [str(path) for path in [*sorted(core.glob("*.c")), *sorted(PORT.glob("*.c"))]]
    library_units = [unit for unit in units if not unit.endswith("main.c")]
    common = [compiler, *FLAGS, f"-DVE_FIRMWARE_HASH=0x{firmware_hash():08x}u", f"-I{core}"]
    native = _in(folder, mujoco=False)
    for output, inputs, kind in ((native.program, units, []), (native.library, library_units, ["-shared"])):
        result = subprocess.run(
            [*common, *kind, *inputs, "-o", str(output), *extra, "-lm"], capture_output=True, text=True
        )
        if result.returncode != 0:
            raise BuildError(f"the firmware does not compile here: {result.stderr.strip().splitlines()[0]}")


def replay_in(folder: Path) -> Path:
    """Path of the library that `compile_replay` makes."""
    return folder / "libreplay.so"


def compile_replay(folder: Path, extra: Sequence[str] = (), core: Path = FIRMWARE / "core") -> None:
    """Compiles the library that replays fuzzed inputs into `folder`. Raises `BuildError`."""
    units = [str(path) for path in [*sorted(core.glob("*.c")), FUZZ / "fuzz_device.c"]]
    command = [os.environ.get("CC", "cc"), *FLAGS, f"-I{core}", "-shared", *units, *extra, "-lm"]
    folder.mkdir(parents=True, exist_ok=True)
    result = subprocess.run([*command, "-o", str(replay_in(folder))], capture_output=True, text=True)
    if result.returncode != 0:
        raise BuildError(f"the replay does not compile here: {result.stderr.strip().splitlines()[0]}")


def _compile_once(folder: Path, extra: list[str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        built = Path(scratch) / "built"
        compile_device(built, extra)
        try:
            built.rename(folder)
        except OSError:  # another process finished first, with the same result
            if not folder.is_dir():
                raise


def _in(folder: Path, mujoco: bool) -> NativeDevice:
    return NativeDevice(folder / "bridge-sim", folder / "libbridge_sim.so", mujoco)


def _mujoco_flags() -> list[str]:
    spec = importlib.util.find_spec("mujoco")
    root = Path(spec.origin).parent if spec is not None and spec.origin else None
    libraries = sorted(root.glob("libmujoco.so*")) if root else []
    if root is None or not libraries:
        raise BuildError("the simulated arm needs MuJoCo: pip install 'vla-edge[sim]'")
    return [
        "-DVE_WITH_MUJOCO",
        "-isystem",
        str(root / "include"),
        str(libraries[0]),
        f"-Wl,-rpath,{root}",
    ]


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "vla-edge"
