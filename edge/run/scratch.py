"""A folder for the time of a run, in the temporary folder; what killed processes left there goes with the next one."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edge.errors import InputError

PREFIX = "vla-edge-run-"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Locked for as long as its process lives, whatever ends that: one that is not locked is nobody's any more.

    Raises `InputError` where there is no place for it.
    """
    try:
        remove_abandoned()
        folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    except OSError as error:
        raise InputError(
            f"nothing can be written in the temporary folder ({error.strerror}); make room there, or name another "
            "with TMPDIR"
        ) from None
    lock = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_abandoned() -> None:
    """Removes this user's folders whose process is gone and whose lock is free (another container has other pids)."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError, ValueError):
            pid = int(folder.name.removeprefix(PREFIX).partition("-")[0])
            if folder.lstat().st_uid != os.geteuid() or folder.is_symlink() or Path(f"/proc/{pid}").exists():
                continue
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
