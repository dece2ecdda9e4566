"""Starts every process of a run, so that none outlives the one that started it.

The system ends a child when its parent goes (PR_SET_PDEATHSIG), and the parent's pid is handed over, so that one that
went while the child was still starting is noticed too. A child is in a session of its own: what a terminal sends,
Ctrl-C or a hang-up, is for the run alone. A Python child imports nothing from the current folder, on 3.10 too, where
the interpreter has no option for that.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

FIRST = Path(__file__).with_name("child.py")
"""What a Python child runs before anything else."""
NOT_FOR_CHILDREN = (signal.SIGINT, signal.SIGHUP)
"""Whoever sends them means the run, which ends its children in its own order."""
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
END_TIMEOUT_S = 10.0
"""An adapter brings its arm to rest in it."""


def start_module(
    module: str, arguments: Sequence[str] = (), end: int = signal.SIGKILL, **options: Any
) -> subprocess.Popen[Any]:
    """Starts `main` of a module as a process; `end` is the signal that it gets when this process goes, 0 for none."""
    command = [sys.executable, str(FIRST), str(os.getpid()), str(int(end)), module, *arguments]
    return start(command, env=without_current_folder(dict(os.environ)), **options)


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Starts a program that looks after its parent's end itself, with `subprocess.Popen`'s options.

    The end of a parent is, for the system, that of the thread which started the child; where that is not the main one,
    a thread does it that lasts as long as the process.
    """

    def popen() -> subprocess.Popen[Any]:
        before = signal.pthread_sigmask(signal.SIG_BLOCK, NOT_FOR_CHILDREN)  # inherited, from the first moment on
        try:
            return subprocess.Popen(command, start_new_session=True, **options)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    if threading.current_thread() is threading.main_thread():
        return _not_interrupted(popen)
    return _lasting_thread().submit(popen).result()


def _not_interrupted(popen: Callable[[], subprocess.Popen[Any]]) -> subprocess.Popen[Any]:
    """What a signal raises is raised once the child is there, and has ended: in mid-start nobody would know of it.

    To block the signals is not enough: the system gives them to another thread, and Python handles them in this one.
    """
    came: list[int] = []
    handlers = {number: handler for number in STOP_SIGNALS if callable(handler := signal.getsignal(number))}

    def restore() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)

    process = None
    try:
        for number in handlers:
            signal.signal(number, lambda number, _: came.append(number))
        process = popen()
        restore()
        for late in came:
            signal.raise_signal(late)
    except BaseException:
        restore()
        if process is not None:
            _end_and_close(process)
        raise
    return process


@contextmanager
def ended_on_error(process: subprocess.Popen[Any]) -> Iterator[None]:
    """For whoever waits for a child's first word. Nobody else could end it: it has ended before anything is raised."""
    try:
        yield
    except BaseException:
        _end_and_close(process)
        raise


def _end_and_close(process: subprocess.Popen[Any]) -> None:
    end(process, END_TIMEOUT_S)
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with suppress(OSError):
                stream.close()


def end(process: subprocess.Popen[Any], timeout_s: float) -> None:
    """Asks a child to end, and ends it where it has not after so long."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@cache
def _lasting_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "children")


def without_current_folder(environment: dict[str, str]) -> dict[str, str]:
    """Leaves out of PYTHONPATH what depends on the current folder: an empty entry means that folder itself."""
    entries = environment.pop("PYTHONPATH", "").split(os.pathsep)
    kept = [entry for entry in entries if Path(entry).is_absolute()]
    return {**environment, "PYTHONPATH": os.pathsep.join(kept)} if kept else environment
