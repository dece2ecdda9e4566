"""2,000 hostile messages at each door, through its parser and its decision; `make doors` sends a million."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from edge.doors.ros2_wire import JOINT_STATE, TRAJECTORY, Types
from tests.hostile_doors import MOST_GROWTH_MB, Door, doors, tried

MESSAGES = 2000


@pytest.fixture(scope="module")
def all_doors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Door]:
    return doors(tmp_path_factory.mktemp("doors"))


@pytest.mark.parametrize("number", range(6))
def test_no_message_breaks_a_door_or_moves_an_arm_beyond_its_limits(all_doors: dict[str, Door], number: int) -> None:
    name = list(all_doors)[number]
    tally = tried(all_doors[name], MESSAGES)
    assert not tally.broken and tally.messages == MESSAGES, f"{name}: {tally.broken}"
    assert 0 < tally.taken < 0.9 * MESSAGES, f"{name}: {tally.taken} taken: the messages are all alike"
    assert tally.growth_mb < MOST_GROWTH_MB


def test_a_door_that_fails_is_found(all_doors: dict[str, Door]) -> None:
    door = all_doors["LeRobot, actions"]

    def careless(action: dict[Any, Any]) -> bool:
        return bool(np.isfinite([float(value) for value in action.values()]).all())

    assert tried(Door(door.make, careless, door.refusals), MESSAGES).broken


def cdr_text(text: str) -> bytes:
    data = text.encode() + b"\0"
    return struct.pack("<I", len(data)) + data


def aligned(data: bytes, size: int) -> bytes:
    return data + bytes(-len(data) % size)


def cdr_numbers(before: bytes, *rows: float) -> bytes:
    """A sequence of doubles behind `before`: its count, then, from the next multiple of 8 on, the numbers."""
    counted = aligned(before, 4) + struct.pack("<I", len(rows))
    return aligned(counted, 8) + struct.pack(f"<{len(rows)}d", *rows) if rows else counted


def test_a_joint_state_is_the_bytes_that_cdr_makes_of_it() -> None:
    """By hand, after the OMG's rules for plain CDR: little endian, numbers at multiples of their size."""
    types = Types()
    stamp = types.make("builtin_interfaces/msg/Time", sec=7, nanosec=8)
    header = types.make("std_msgs/msg/Header", stamp=stamp, frame_id="")
    none = np.zeros(0)
    message = types.make(
        JOINT_STATE, header=header, name=["a", "bcd"], position=np.array([0.5, -1.25]), velocity=none, effort=none
    )
    body = aligned(struct.pack("<iI", 7, 8) + cdr_text(""), 4) + struct.pack("<I", 2)
    body = aligned(aligned(body + cdr_text("a"), 4) + cdr_text("bcd"), 4)
    body = cdr_numbers(cdr_numbers(cdr_numbers(body, 0.5, -1.25)))
    assert types.pack(message) == b"\0\x01\0\0" + body


def test_a_trajectory_is_read_from_the_bytes_that_cdr_makes_of_it() -> None:
    body = aligned(struct.pack("<iI", 0, 0) + cdr_text("base"), 4) + struct.pack("<I", 1)
    body = aligned(body + cdr_text("a"), 4) + struct.pack("<I", 2)
    for number in (1, 2):
        body = cdr_numbers(cdr_numbers(cdr_numbers(cdr_numbers(body, 0.25 * number), 0.1)))
        body = aligned(body, 4) + struct.pack("<iI", number, 500)
    found = Types().unpack(b"\0\x01\0\0" + body, TRAJECTORY)
    assert found.joint_names == ["a"] and found.header.frame_id == "base"
    assert [list(point.positions) for point in found.points] == [[0.25], [0.5]]
    assert [list(point.velocities) for point in found.points] == [[0.1], [0.1]]
    assert [(point.time_from_start.sec, point.time_from_start.nanosec) for point in found.points] == [
        (1, 500),
        (2, 500),
    ]
