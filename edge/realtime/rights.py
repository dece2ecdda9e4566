"""Settings of the operating system for a loop that must not be late, and which of them it granted.

Without any rights the loop runs all the same; each refused setting has its cost and the fix in its `detail`.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

PRIORITY = 80
"""Of SCHED_FIFO: above ordinary interrupt threads (50), below the kernel's own watchdogs (99)."""
PR_SET_TIMERSLACK, DEFAULT_SLACK_NS = 29, 50_000
MCL_CURRENT, MCL_FUTURE = 1, 2
SWITCH_S = 0.0001
ISOLATED = Path("/sys/devices/system/cpu/isolated")


@dataclass(frozen=True)
class RealtimeSetting:
    """One setting, and whether the system granted it. `detail`: its value, or the cost of its absence and the fix."""

    what: str
    granted: bool
    detail: str


@dataclass(frozen=True)
class CpuPlan:
    """Processors of the control loop and of everything else; empty where there are too few to divide."""

    control: tuple[int, ...]
    others: tuple[int, ...]


def plan_cpus(available: set[int], isolated: set[int]) -> CpuPlan:
    """The control loop gets an isolated processor if there is one, else the last; the others go to inference."""
    if len(available) < 2:
        return CpuPlan((), ())
    control = max(available & isolated, default=max(available))
    return CpuPlan((control,), tuple(sorted(available - {control})))


def cpus_here() -> CpuPlan:
    """The plan for this machine and process."""
    text = ISOLATED.read_text() if ISOLATED.exists() else ""
    return plan_cpus(os.sched_getaffinity(0), parse_cpu_list(text))


def parse_cpu_list(text: str) -> set[int]:
    """The kernel's notation: `0-2,5`."""
    cpus: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus |= set(range(int(first), int(last or first) + 1))
    return cpus


@contextmanager
def realtime(plan: CpuPlan) -> Iterator[list[RealtimeSetting]]:
    """Makes the calling thread as punctual as it may be, and undoes it. Children do not inherit the priority."""
    with ExitStack() as undo:
        yield [_timer_slack(undo), _fifo(undo), _locked(undo), _pinned(plan, undo), _frozen_gc(undo)]


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _timer_slack(undo: ExitStack) -> RealtimeSetting:
    libc = _libc()
    if libc.prctl(PR_SET_TIMERSLACK, ctypes.c_ulong(1), 0, 0, 0) != 0:
        return RealtimeSetting("timer slack", False, "sleeps end up to 50 us late; the kernel refused prctl")
    undo.callback(libc.prctl, PR_SET_TIMERSLACK, ctypes.c_ulong(DEFAULT_SLACK_NS), 0, 0, 0)
    return RealtimeSetting("timer slack", True, "1 ns instead of 50 us")


def _fifo(undo: ExitStack) -> RealtimeSetting:
    before, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(PRIORITY))
    except OSError as error:
        fix = "run as root, or set 'rtprio 90' for this user in /etc/security/limits.conf"
        return RealtimeSetting(
            "SCHED_FIFO", False, f"other processes may delay the loop by milliseconds ({error.strerror}); {fix}"
        )
    undo.callback(os.sched_setscheduler, 0, before, parameters)
    return RealtimeSetting("SCHED_FIFO", True, f"priority {PRIORITY}")


def _locked(undo: ExitStack) -> RealtimeSetting:
    libc = _libc()
    unlimited = os.geteuid() == 0 or resource.getrlimit(resource.RLIMIT_MEMLOCK)[0] == resource.RLIM_INFINITY
    flags = MCL_CURRENT | (MCL_FUTURE if unlimited else 0)  # under a limit, a later allocation would fail instead
    if libc.mlockall(flags) != 0:
        fix = "run as root, or set 'memlock unlimited' for this user in /etc/security/limits.conf"
        return RealtimeSetting(
            "mlockall", False, f"a page that was swapped out delays a step ({os.strerror(ctypes.get_errno())}); {fix}"
        )
    undo.callback(libc.munlockall)
    return RealtimeSetting("mlockall", True, "all memory" if unlimited else "memory in use")


def _pinned(plan: CpuPlan, undo: ExitStack) -> RealtimeSetting:
    if not plan.control:
        return RealtimeSetting(
            "own processor", False, "control and inference share the only one: a chunk delays the loop"
        )
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, plan.control)
    except OSError as error:
        return RealtimeSetting("own processor", False, f"the loop may move between processors ({error.strerror})")
    undo.callback(os.sched_setaffinity, 0, before)
    return RealtimeSetting(
        "own processor", True, f"control on {plan.control[0]}, inference on {','.join(map(str, plan.others))}"
    )


def _frozen_gc(undo: ExitStack) -> RealtimeSetting:
    switch_s = sys.getswitchinterval()
    gc.collect()  # a collection takes longer than a heartbeat may stay away
    gc.freeze()
    gc.disable()
    sys.setswitchinterval(SWITCH_S)
    undo.callback(sys.setswitchinterval, switch_s)
    undo.callback(gc.unfreeze)
    undo.callback(gc.enable)
    return RealtimeSetting("garbage collection", True, "frozen")
