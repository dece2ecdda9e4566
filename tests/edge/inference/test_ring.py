"""The ring: order, wrap-around, no waiting when full, nothing torn."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import deque

import pytest

from edge.inference.mailbox import SharedMemory
from edge.inference.ring import LENGTH_AND_CHECKSUM, Ring

CAPACITY = 512
PRODUCER = """
import sys
from edge.inference.mailbox import SharedMemory
from edge.inference.ring import Ring
from tests.edge.inference.test_ring import pattern
ring = Ring(SharedMemory(Ring.size_of({capacity}), int(sys.argv[1])), {capacity})
for number in range({count}):
    while not ring.push(pattern(number)):
        pass
"""


def pattern(number: int) -> bytes:
    """A record of 8 to 107 bytes that says its number in every word."""
    return number.to_bytes(8, "little") * (1 + number % 12) + bytes(number % 8)


@pytest.fixture
def ring() -> Ring:
    return Ring(SharedMemory(Ring.size_of(CAPACITY)), CAPACITY)


def test_records_come_out_as_they_went_in_across_many_wraps(ring: Ring) -> None:
    draw, waiting = random.Random(1), deque[bytes]()
    taken = refused = 0
    for number in range(20_000):
        data = draw.randbytes(draw.randrange(0, 120))
        if ring.push(data):
            waiting.append(data)
        else:
            refused += 1
        while waiting and draw.random() < 0.55:
            assert ring.pop() == waiting.popleft(), f"record {number}"
            taken += 1
    assert taken > 10_000 and ring.dropped == refused > 100
    assert [ring.pop() for _ in waiting] == list(waiting) and ring.pop() is None


def test_a_full_ring_drops_counts_and_keeps_what_it_has(ring: Ring) -> None:
    room = CAPACITY // (LENGTH_AND_CHECKSUM.size + 24)
    pushed = [ring.push(bytes([number]) * 24) for number in range(room + 3)]
    assert pushed == [True] * room + [False] * 3
    assert ring.dropped == 3
    assert [ring.pop() for _ in range(room)] == [bytes([number]) * 24 for number in range(room)]
    assert ring.push(b"again") and ring.pop() == b"again"


def test_a_record_of_the_whole_ring_fits_and_a_larger_one_is_dropped(ring: Ring) -> None:
    whole = bytes(range(256))[: CAPACITY - LENGTH_AND_CHECKSUM.size] * 2
    whole = whole[: CAPACITY - LENGTH_AND_CHECKSUM.size]
    assert not ring.push(whole + b"x") and ring.dropped == 1
    assert ring.push(whole) and ring.pop() == whole


def test_bytes_that_are_not_there_yet_are_waited_for(ring: Ring) -> None:
    ring.push(b"first record")
    at = LENGTH_AND_CHECKSUM.size + 3
    right = ring._bytes[at]
    ring._bytes[at] = right ^ 1
    assert ring.pop() is None and ring.used > 0
    ring._bytes[at] = right
    assert ring.pop() == b"first record"


def test_what_is_left_of_an_earlier_lap_is_not_taken_for_a_record(ring: Ring) -> None:
    """The checksum knows its place in the stream: the same bytes one lap later do not fit."""
    data = bytes(CAPACITY // 2 - LENGTH_AND_CHECKSUM.size)
    for _ in range(2):
        assert ring.push(data) and ring.pop() == data
    ring._words[0] += CAPACITY // 2  # the head is visible, the bytes are those of the first lap
    assert ring.pop() is None


def test_two_processes_lose_and_tear_nothing() -> None:
    count, capacity = 20_000, 4096
    memory = SharedMemory(Ring.size_of(capacity))
    ring = Ring(memory, capacity)
    command = [sys.executable, "-c", PRODUCER.format(capacity=capacity, count=count), str(memory.descriptor)]
    producer = subprocess.Popen(command, pass_fds=[memory.descriptor])
    try:
        deadline, number = time.monotonic() + 60, 0
        while number < count:
            data = ring.pop()
            if data is None:
                assert time.monotonic() < deadline and producer.poll() in (None, 0)
                continue
            assert data == pattern(number)
            number += 1
    finally:
        producer.kill()
        producer.wait()
    assert ring.pop() is None
