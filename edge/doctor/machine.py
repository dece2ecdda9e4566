"""The computer: what is installed, its cores and clocks, its kernel, its memory. `root` stands in for / in a test."""

from __future__ import annotations

import ctypes
import mmap
import os
import re
from collections.abc import Callable
from pathlib import Path

from edge.doctor.check import Check, Status, judged
from firmware_bridge.errors import BuildError
from firmware_bridge.native import build, firmware_hash

REQUIRED = ("numpy", "onnxruntime", "pyserial", "tokenizers", "tqdm")
OPTIONAL = {
    "opencv-python-headless": "camera",
    "python-can": "can",
    "mujoco": "sim",
    "matplotlib": "plot",
}
OLDEST_PYTHON = (3, 10)
PROCESS_BYTES = 300 << 20
"""Both processes of a run without their engines take 200 MB (docs/howto/doctor.md); the rest is for cameras."""
ENGINE_COPIES = 2
"""While an engine is opened, the file's weights may be held beside its own copy: an allowance, not a measurement."""


def read(path: Path) -> str | None:
    """The text of a file of /sys or /proc, None where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return None


def check_python(version: tuple[int, int, int]) -> Check:
    """The interpreter."""
    text = ".".join(map(str, version))
    oldest = ".".join(map(str, OLDEST_PYTHON))
    good = version[:2] >= OLDEST_PYTHON
    return judged("python", good, text, f"install Python {oldest} or newer", Status.FAIL, version=text)


def check_packages(version_of: Callable[[str], str | None]) -> Check:
    """What the robot's side needs, and the optional extras that are there."""
    versions = {name: version_of(name) for name in (*REQUIRED, *OPTIONAL)}
    missing = [name for name in REQUIRED if versions[name] is None]
    if missing:
        return Check("packages", Status.FAIL, f"{', '.join(missing)} missing", "pip install vla-edge", versions)
    extras = [extra for name, extra in OPTIONAL.items() if versions[name] is None]
    found = ", ".join(f"{name} {versions[name]}" for name in REQUIRED)
    return Check("packages", Status.OK, found + (f"; without {', '.join(extras)}" if extras else ""), "", versions)


def check_core() -> Check:
    """Where the core for simulated devices and adapters comes from; it is loaded, as a run would load it."""
    try:
        core = build()
        ctypes.CDLL(str(core.library))
    except (BuildError, OSError) as error:
        return Check.failed("core", error)
    figures = {"folder": str(core.folder), "firmware": f"{firmware_hash():08x}"}
    return Check("core", Status.OK, f"firmware {figures['firmware']}, {core.origin()}", "", figures)


def check_cores(root: Path, usable: int) -> Check:
    """Cores that this process may use, and cores kept free of everything else."""
    isolated = read(root / "sys/devices/system/cpu/isolated") or ""
    text = f"{usable} core{'s' if usable > 1 else ''} usable, isolated: {isolated or 'none'}"
    fix = "control and inference share a core; widen the affinity (taskset -p $$), or use a machine with two"
    return judged("cores", usable >= 2, text, fix, usable=usable, isolated=isolated)


def check_kernel(root: Path) -> Check:
    """Whether the kernel can be interrupted everywhere."""
    version = read(root / "proc/version") or "unknown kernel"
    realtime = read(root / "sys/kernel/realtime") == "1" or "PREEMPT_RT" in version
    release = re.sub(r"^Linux version (\S+).*", r"\1", version, flags=re.DOTALL)
    return judged(
        "kernel",
        realtime,
        f"{release}, {'PREEMPT_RT' if realtime else 'no PREEMPT_RT'}",
        "fit for a simulated arm; for a real one install a PREEMPT_RT kernel (Jetson: nvidia-l4t-rt-kernel)",
        realtime=realtime,
    )


def check_governor(root: Path) -> Check:
    """Whether the clock is held up between two inferences."""
    folders = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq"))
    governors = sorted({read(folder / "scaling_governor") or "unknown" for folder in folders})
    if not folders:
        return Check("governor", Status.SKIPPED, "this machine shows no CPU clock (a virtual one does not)")
    now_mhz = [int(read(folder / "scaling_cur_freq") or 0) // 1000 for folder in folders]
    most_mhz = [int(read(folder / "cpuinfo_max_freq") or 0) // 1000 for folder in folders]
    jetson = "jetson" in (read(root / "proc/device-tree/model") or "").lower()
    return judged(
        "governor",
        governors == ["performance"],
        f"{', '.join(governors)}; {min(now_mhz)} of {max(most_mhz)} MHz",
        "sudo nvpmodel -m 0 && sudo jetson_clocks" if jetson else "sudo cpupower frequency-set -g performance",
        governors=governors,
        now_mhz=now_mhz,
        most_mhz=most_mhz,
    )


def check_memory(root: Path, bundle_bytes: int | None) -> Check:
    """Memory that is free, against what the bundle's engines take."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB", read(root / "proc/meminfo") or "", re.MULTILINE)
    if match is None:
        return Check("memory", Status.SKIPPED, "/proc/meminfo does not list what is available")
    free_mb = int(match[1]) >> 10
    if bundle_bytes is None:
        return Check("memory", Status.OK, f"{free_mb} MB available; give --bundle to compare", "", {"free_mb": free_mb})
    needed_mb = (PROCESS_BYTES + ENGINE_COPIES * bundle_bytes) >> 20
    return judged(
        "memory",
        free_mb >= needed_mb,
        f"{free_mb} MB available, about {needed_mb} MB needed",
        "close other programs (Jetson: sudo systemctl isolate multi-user.target), or export a smaller policy",
        Status.FAIL,
        free_mb=free_mb,
        needed_mb=needed_mb,
    )


def check_shared_memory(create: Callable[[str], int] = os.memfd_create) -> Check:
    """What the two processes share is anonymous; /dev/shm is not used."""
    try:
        descriptor = create("vla-edge-doctor")
        os.ftruncate(descriptor, mmap.PAGESIZE)
        mmap.mmap(descriptor, mmap.PAGESIZE).close()
        os.close(descriptor)
    except OSError as error:
        fix = "allow memfd_create (a container's seccomp profile may forbid it)"
        return Check("shared memory", Status.FAIL, f"anonymous memory is refused ({error.strerror})", fix)
    return Check("shared memory", Status.OK, "anonymous memory works; /dev/shm is not needed")
