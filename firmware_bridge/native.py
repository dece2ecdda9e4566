"""The core for this machine, as a program and as a shared library: prebuilt in the wheel, or compiled on first use."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware_bridge.errors import BuildError

FIRMWARE = Path(__file__).parent / "firmware"
PORT = FIRMWARE / "ports" / "host"
FUZZ = FIRMWARE / "fuzz"
PREBUILT = Path(__file__).parent / "prebuilt"
"""Only in a wheel: made by tools/wheels.py."""
FLAGS = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-fPIC", "-ffp-contract=off")
"""No contraction into fused operations: host and device must compute the same from the same numbers."""
OVERRIDE = "VLA_EDGE_NATIVE"
"""Names a folder made by `compile_device` to use in place of all others: instrumented builds for tests."""
LOCAL_COMPILER = "cc"
NEEDS_COMPILER = "sudo apt-get install gcc libc6-dev"


@dataclass(frozen=True)
class NativeDevice:
    """What was built, all in one folder."""

    folder: Path

    @property
    def program(self) -> Path:
        return self.folder / "bridge-sim"

    @property
    def library(self) -> Path:
        return self.folder / "libbridge_sim.so"

    @property
    def record(self) -> Path:
        """JSON: `sources` (their hash), `machine` and `compiler`."""
        return self.folder / "core.json"

    def origin(self) -> str:
        """Where it comes from, for a person."""
        where = "prebuilt in the wheel" if self.folder == PREBUILT else f"compiled into {self.folder}"
        built = json.loads(self.record.read_text()) if self.record.is_file() else {}
        return f"{where}, by {built.get('compiler', 'an unknown compiler')}"


def source_hash() -> str:
    """Over all C sources and headers of the core and the host port, and how they are compiled."""
    return _digest([*(FIRMWARE / "core").glob("*.[ch]"), *PORT.glob("*.[ch]")], repr(FLAGS))


def firmware_hash() -> int:
    """32 bits over the core's sources: what CAPS states as the firmware's identity."""
    return int(_digest((FIRMWARE / "core").glob("*.[ch]"))[:8], 16)


def build() -> NativeDevice:
    """The wheel's core if it is of these sources and for this machine, else one compiled once. Raises `BuildError`."""
    override = os.environ.get(OVERRIDE)
    if override:
        return NativeDevice(Path(override))
    device = NativeDevice(PREBUILT)
    if not _fits(device):
        extra = mujoco_flags()
        device = NativeDevice(cache_folder() / hashlib.sha256(repr((source_hash(), extra)).encode()).hexdigest()[:16])
        if not device.folder.is_dir():
            _compile_once(device.folder, extra)
    for path in (device.folder, device.program, device.library):
        if not _private(path):
            raise BuildError(f"other users may write {path}, so it is not executed; remove it, or: chmod go-w {path}")
    return device


def compile_device(
    folder: Path, extra: Sequence[str] = (), core: Path = FIRMWARE / "core", compiler: Sequence[str] = ()
) -> None:
    """Compiles program and library into `folder`, with further flags and from `core`. Raises `BuildError`."""
    folder.mkdir(parents=True, exist_ok=True)
    units = [*sorted(core.glob("*.c")), *sorted(PORT.glob("*.c"))]
    flags = [f"-DVE_FIRMWARE_HASH=0x{firmware_hash():08x}u", f"-I{core}", *extra]
    device = NativeDevice(folder)
    _compile(device.program, units, flags, compiler)
    _compile(device.library, [unit for unit in units if unit.name != "main.c"], [*flags, "-shared"], compiler)


def record_origin(device: NativeDevice, machine: str, compiler: str) -> None:
    """Writes beside a build what it was made from, for which processor and by which compiler."""
    device.record.write_text(json.dumps({"sources": source_hash(), "machine": machine, "compiler": compiler}))


def replay_in(folder: Path) -> Path:
    """Path of the library that `compile_replay` makes."""
    return folder / "libreplay.so"


def compile_replay(
    folder: Path, extra: Sequence[str] = (), core: Path = FIRMWARE / "core", compiler: Sequence[str] = ()
) -> None:
    """Compiles the library that replays fuzzed inputs into `folder`. Raises `BuildError`."""
    folder.mkdir(parents=True, exist_ok=True)
    units = [*sorted(core.glob("*.c")), FUZZ / "fuzz_device.c"]
    _compile(replay_in(folder), units, [f"-I{core}", "-shared", *extra], compiler)


def load(path: Path, signatures: Mapping[str, tuple[Any, ...]]) -> ctypes.CDLL:
    """Opens a library; `signatures` has by function name the type of its result, then those of its arguments."""
    library = ctypes.CDLL(str(path))
    for name, (result, *arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def mujoco_library() -> Path:
    """The shared library of the installed MuJoCo. Raises `BuildError`."""
    root = _mujoco()
    if root is None:
        raise BuildError("the simulated arm needs MuJoCo; pip install 'vla-edge[sim]'")
    return next(root.glob("libmujoco.so*"))


def mujoco_flags() -> list[str]:
    """What compiles the plant with MuJoCo, where its headers are; it is loaded when it is needed."""
    root = _mujoco()
    return ["-DVE_WITH_MUJOCO", "-isystem", str(root / "include")] if root else []


def _mujoco() -> Path | None:
    spec = importlib.util.find_spec("mujoco")
    root = Path(spec.origin).parent if spec is not None and spec.origin else None
    return root if root and any(root.glob("libmujoco.so*")) else None


def _digest(paths: Iterator[Path] | list[Path], text: str = "") -> str:
    digest = hashlib.sha256(text.encode())
    for path in sorted(paths):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def _fits(device: NativeDevice) -> bool:
    if not device.record.is_file():
        return False
    built = json.loads(device.record.read_text())
    return (built["sources"], built["machine"]) == (source_hash(), platform.machine())


def _compile(output: Path, units: Sequence[Path], flags: Sequence[str], compiler: Sequence[str]) -> None:
    command = [*(compiler or [_local_compiler()]), *FLAGS, *map(str, units), *flags, "-o", str(output), "-lm", "-ldl"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode != 0:
        raise BuildError(f"{output.name} does not compile here: {result.stderr.strip().splitlines()[0]}")


def _local_compiler() -> str:
    compiler = shutil.which(os.environ.get("CC", LOCAL_COMPILER))
    if compiler is None:
        raise BuildError(
            f"the core is neither prebuilt here for {platform.machine()} nor is there a C compiler; "
            f"install vla-edge from its wheel, or: {NEEDS_COMPILER}"
        )
    return compiler


def _compile_once(folder: Path, extra: Sequence[str]) -> None:
    compiler = subprocess.run([_local_compiler(), "--version"], capture_output=True, text=True).stdout
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        built = Path(scratch) / "built"
        compile_device(built, extra)
        record_origin(NativeDevice(built), platform.machine(), compiler.partition("\n")[0])
        try:
            built.rename(folder)
        except OSError:  # another process finished first, with the same result
            if not folder.is_dir():
                raise


def _private(path: Path) -> bool:
    """Whether nobody may have written `path` who could not have written this module as well."""
    ours, theirs = Path(__file__).stat(), path.stat()
    trusted = {0, os.geteuid(), ours.st_uid}
    owners = {theirs.st_uid, path.lstat().st_uid}  # a link may lead elsewhere tomorrow
    return owners <= trusted and not theirs.st_mode & ~ours.st_mode & 0o022


def cache_folder() -> Path:
    """Where this user keeps what can be made again. Raises `BuildError`."""
    return own_folder("XDG_CACHE_HOME", ".cache")


def own_folder(variable: str, under_home: str) -> Path:
    """A folder that this user alone may write: where the variable says, at home, or in the temporary folder.

    Raises `BuildError`.
    """
    places = []
    with contextlib.suppress(RuntimeError):  # a user without a home
        places.append(Path(os.environ.get(variable) or Path.home() / under_home) / "vla-edge")
    with contextlib.suppress(OSError):  # no temporary folder takes a file
        places.append(Path(tempfile.gettempdir()) / f"vla-edge-{os.geteuid()}")
    for place in places:
        with contextlib.suppress(OSError):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if _private(place) and os.access(place, os.W_OK):
                return place
    named = ", ".join(map(str, places)) or "a home and a temporary folder"
    raise BuildError(f"this user alone can write neither of {named}; set {variable}")
