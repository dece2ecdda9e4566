"""What a measurement was made on: enough to tell whether two of them may stand beside each other."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from edge.engines.gpu import present_gpu

LIBRARIES = (
    *("vla-edge", "numpy", "onnxruntime", "onnxruntime-gpu", "onnx", "torch", "transformers", "mujoco", "pyserial"),
    *("tensorrt", "tensorrt-rtx", "openpi-client", "lerobot"),
)
ROOT = Path(__file__).resolve().parents[1]
LOOK_S = 0.25
"""How long is looked for what else the machine does."""
CPU_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16", "asimddp", "i8mm", "bf16")
"""What decides how fast products are, INT8 above all."""


def fingerprint(root: Path = Path("/")) -> dict[str, Any]:
    """Processor, clocks, memory, kernel, versions, commit. Whatever the machine does not tell is None."""
    info = _read(root / "proc/cpuinfo") or ""
    gpu = present_gpu()
    return {
        "cpu": _field(info, "model name") or _field(info, "Model") or platform.machine(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "cpu_flags": [flag for flag in CPU_FLAGS if re.search(rf"\b{flag}\b", info)],
        "l3_bytes": l3_bytes(root),
        "governor": _every(root, "cpufreq/scaling_governor"),
        "clock_mhz": _clocks(root, info),
        "hypervisor": bool(re.search(r"\bhypervisor\b", info)),
        "board": (_read(root / "proc/device-tree/model") or "").strip("\0\n ") or None,
        "jetson_release": (_read(root / "etc/nv_tegra_release") or "").strip() or None,
        "gpu": str(gpu) if gpu else None,
        "memory_bytes": _memory(root),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "versions": {name: found for name in LIBRARIES if (found := _version(name))},
        "busy_share": busy_share(root),
        **_commit(),
    }


def busy_share(root: Path = Path("/"), seconds: float = LOOK_S) -> float | None:
    """Share of all cores that something kept busy while this process waited for so long.

    The load average would not do: for minutes it remembers the bundles that were made for this very measurement.
    """
    before = _processor_ticks(root)
    time.sleep(seconds)
    after = _processor_ticks(root)
    if before is None or after is None or after[1] <= before[1]:
        return None
    return round(1 - (after[0] - before[0]) / (after[1] - before[1]), 3)


def _processor_ticks(root: Path) -> tuple[int, int] | None:
    """Ticks that all cores were idle or waiting for a disk, and all ticks, since the machine began (proc(5))."""
    fields = (_read(root / "proc/stat") or "").partition("\n")[0].split()
    if not fields or fields[0] != "cpu":
        return None
    ticks = [int(field) for field in fields[1:9]]  # user nice system idle iowait irq softirq steal; guests are in user
    return ticks[3] + ticks[4], sum(ticks)


def same_machine(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What of two fingerprints differs and makes their times incomparable; empty when nothing does."""
    keys = ("cpu", "usable_cores", "governor", "board", "gpu", "kernel", "python", "versions")
    return [f"{key}: {one.get(key)} and {other.get(key)}" for key in keys if one.get(key) != other.get(key)]


def l3_bytes(root: Path = Path("/")) -> int | None:
    """The last-level cache that the first processor sees."""
    sizes = [_read(path) or "" for path in (root / "sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    units = {"K": 1 << 10, "M": 1 << 20}
    found = [int(match[1]) * units[match[2]] for text in sizes if (match := re.match(r"(\d+)([KM])", text))]
    return max(found, default=None)


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return None


def _field(info: str, name: str) -> str | None:
    match = re.search(rf"^{name}\s*:\s*(.+)$", info, re.MULTILINE)
    return match[1].strip() if match else None


def _every(root: Path, name: str) -> list[str] | None:
    """The different values of a file of every processor."""
    paths = (root / "sys/devices/system/cpu").glob(f"cpu[0-9]*/{name}")
    return sorted({text.strip() for path in paths if (text := _read(path))}) or None


def _clocks(root: Path, info: str) -> dict[str, Sequence[float] | None]:
    current = sorted({round(float(value)) for value in re.findall(r"^cpu MHz\s*:\s*([\d.]+)", info, re.MULTILINE)})
    limits = _every(root, "cpufreq/cpuinfo_max_freq")
    return {"now": current or None, "max": [int(value) / 1000 for value in limits] if limits else None}


def _memory(root: Path) -> int | None:
    match = re.search(r"MemTotal:\s*(\d+) kB", _read(root / "proc/meminfo") or "")
    return int(match[1]) * 1024 if match else None


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> dict[str, Any]:
    """The commit that was measured, and whether something in it had been changed; None outside a checkout."""

    def git(*fields: str) -> str | None:
        try:
            done = subprocess.run(["git", *fields], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    status = git("status", "--porcelain", "--untracked-files=no")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}
