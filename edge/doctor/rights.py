"""What this user may do: real-time priority, locked memory, serial ports."""

from __future__ import annotations

import grp
import json
import os
import subprocess
import sys
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from edge.doctor.check import Check, Status, judged
from edge.doctor.machine import read

SERIAL_GROUP = "dialout"
SLOWEST_TIMER_MS = 1
PROBE_S = 10.0
PROBE = """
import ctypes, json, os, resource
def tried(call):
    try:
        call()
    except OSError as error:
        return error.strerror
def lock():
    if ctypes.CDLL(None, use_errno=True).mlockall(3):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
print(json.dumps({
    "fifo": tried(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
    "lock": tried(lock),
    "rtprio": resource.getrlimit(resource.RLIMIT_RTPRIO)[0],
    "memlock": resource.getrlimit(resource.RLIMIT_MEMLOCK)[0],
}))
"""
"""Runs in a process of its own: what it is granted ends with it."""


@dataclass(frozen=True)
class Rights:
    """What was granted: None, or the system's refusal. Limits as `getrlimit` gives them, -1 for none."""

    fifo: str | None
    lock: str | None
    rtprio: int
    memlock: int


def probe() -> Rights | None:
    """Requests real-time priority and locked memory in a child; None when the child does not run."""
    command = [sys.executable, "-I", "-S", "-c", PROBE]
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=PROBE_S, check=True)
        return Rights(**json.loads(result.stdout))
    except (OSError, ValueError, TypeError, subprocess.SubprocessError):
        return None


def check_priority(rights: Rights | None) -> Check:
    """Whether the control process could run before everything else."""
    if rights is None:
        return Check("priority", Status.SKIPPED, "a process of its own could not be started to try it")
    return judged(
        "priority",
        rights.fifo is None,
        "SCHED_FIFO granted" if rights.fifo is None else f"SCHED_FIFO refused ({rights.fifo})",
        'echo "$USER - rtprio 80" | sudo tee /etc/security/limits.d/vla-edge.conf, then log in again',
        rtprio_limit=rights.rtprio,
    )


def check_locked_memory(rights: Rights | None) -> Check:
    """Whether memory can be kept from being paged out in mid-motion."""
    if rights is None:
        return Check("locked memory", Status.SKIPPED, "a process of its own could not be started to try it")
    limit = "no limit" if rights.memlock < 0 else f"limit {rights.memlock >> 10} kB"
    return judged(
        "locked memory",
        rights.lock is None,
        f"mlockall granted, {limit}" if rights.lock is None else f"mlockall refused ({rights.lock}), {limit}",
        'echo "$USER - memlock unlimited" | sudo tee -a /etc/security/limits.d/vla-edge.conf, then log in again',
        memlock_limit=rights.memlock,
    )


def my_groups() -> set[str]:
    """Names of the groups of this process."""
    names = {entry.gr_gid: entry.gr_name for entry in grp.getgrall()}
    return {names[number] for number in (*os.getgroups(), os.getegid()) if number in names}


def check_serial_rights(groups: Collection[str], is_root: bool) -> Check:
    """Whether a serial port could be opened at all."""
    good = is_root or SERIAL_GROUP in groups
    return judged(
        "serial rights",
        good,
        "root" if is_root else f"{'in' if good else 'not in'} the group {SERIAL_GROUP}",
        f"sudo usermod -aG {SERIAL_GROUP} $USER, then log in again",
    )


def check_serial_timers(root: Path) -> Check:
    """How long USB serial adapters hold back what has arrived."""
    timers = {}
    for folder in sorted(root.glob("sys/bus/usb-serial/devices/*")):
        text = read(folder / "latency_timer")
        if text is not None and text.isdecimal():
            timers[folder.name] = int(text)
    if not timers:
        return Check("serial timer", Status.SKIPPED, "no USB serial adapter with a latency timer is plugged in")
    slow = [name for name, milliseconds in timers.items() if milliseconds > SLOWEST_TIMER_MS]
    fixes = [f"echo 1 | sudo tee /sys/bus/usb-serial/devices/{name}/latency_timer" for name in slow]
    found = ", ".join(f"{name} {milliseconds} ms" for name, milliseconds in timers.items())
    return judged("serial timer", not slow, found, "; ".join(fixes), latency_timer_ms=timers)
