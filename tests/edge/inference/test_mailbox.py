"""The shared slot: the newest record wins, and a torn one is never read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.inference.mailbox import Mailbox, SharedMemory

RECORD = np.dtype([("value", "<i8"), ("rows", "<f8", (300,))])

WRITER = """
import sys
import numpy as np
from edge.inference.mailbox import Mailbox, SharedMemory
dtype = np.dtype([("value", "<i8"), ("rows", "<f8", (300,))])
box = Mailbox(dtype, SharedMemory(Mailbox.size_of(dtype), int(sys.argv[1])), 0)
record = np.zeros(1, dtype)
for value in range(1, 20001):
    record["value"] = value
    record["rows"] = value
    box.write(record)
"""


def record(value: int) -> np.ndarray:
    made = np.zeros(1, RECORD)
    made["value"] = value
    made["rows"] = value
    return made


def make() -> tuple[SharedMemory, Mailbox]:
    memory = SharedMemory(Mailbox.size_of(RECORD))
    return memory, Mailbox(RECORD, memory, 0)


def test_the_newest_wins_and_is_read_once() -> None:
    _, box = make()
    assert box.read(0) is None
    box.write(record(1))
    box.write(record(2))
    found = box.read(0)
    assert found is not None and found[0] == 2 and found[1]["value"][0] == 2
    assert box.read(2) is None


def test_a_record_in_flux_is_not_read() -> None:
    _, box = make()
    box.write(record(1))
    box.write(record(2))
    box._records[0][100] ^= 1
    assert box.read(0) is None, "its checksum does not fit"
    box.write(record(3))
    found = box.read(0)
    assert found is not None and found[0] == 3


@pytest.mark.real_time
def test_two_processes_never_tear_a_record() -> None:
    memory, box = make()
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(memory.descriptor)], pass_fds=[memory.descriptor])
    seen, reads = 0, 0
    while writer.poll() is None or box.number > seen:
        found = box.read(seen)
        if found is not None:
            seen, copy = found
            assert np.all(copy["rows"][0] == copy["value"][0])
            reads += 1
    assert writer.returncode == 0
    assert seen == 20000
    assert reads > 10


def test_mailboxes_side_by_side_do_not_touch() -> None:
    size = Mailbox.size_of(RECORD)
    memory = SharedMemory(2 * size)
    first, second = Mailbox(RECORD, memory, 0), Mailbox(RECORD, memory, size)
    first.write(record(1))
    second.write(record(9))
    first.write(record(2))
    assert second.read(0)[1]["value"][0] == 9  # type: ignore[index]


def descriptors() -> int:
    """How many files in memory this process has open."""
    opened = list(Path("/proc/self/fd").iterdir())  # one of them is of the listing itself
    return sum("memfd" in str(path.readlink()) for path in opened if path.is_symlink())


def test_memory_that_nobody_has_any_more_is_given_back() -> None:
    """A series makes new ones for each of its runs."""
    before = descriptors()
    for number in range(20):
        memory = SharedMemory(1 << 16)
        again = SharedMemory(memory.size, memory.descriptor)
        again.view(0, 8)[:] = number
        assert memory.view(0, 8)[0] == number
    assert descriptors() > before, "the last one is open"
    del memory, again
    assert descriptors() == before
