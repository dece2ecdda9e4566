"""The host's end of the line: whose frames it hears, and in what order it believes them."""

from __future__ import annotations

import pytest

from firmware_bridge.codes import DeviceState, StopReason
from firmware_bridge.framing import MOST_FRAMES, FrameReader, encode_frame
from firmware_bridge.link import MOST_WAITING, OVERTAKEN_BY, Link
from firmware_bridge.messages import Ack, Event, Message, MessageType, StateReport, TimeReply, TimeRequest

SESSION = 7


class Line:
    """Brings what a test puts on it."""

    def __init__(self) -> None:
        self.arriving = b""

    def read(self) -> bytes:
        data, self.arriving = self.arriving, b""
        return data

    def write(self, data: bytes) -> None:
        (frame,) = FrameReader().feed(data)
        assert isinstance(frame.message, TimeRequest), "nothing else is sent here"

    def close(self) -> None:
        return


def event(state: DeviceState) -> Event:
    return Event(1000, state, StopReason.HOST_STOP)


def heard(*frames: tuple[int, Message], session: int = SESSION) -> tuple[list[Message], Link]:
    line = Line()
    link, messages = Link(line, lambda: 0, SESSION), []
    for sequence, message in frames:
        line.arriving = encode_frame(session, sequence, message)
        messages += link.receive()
    return messages, link


def test_a_state_that_was_overtaken_on_the_way_is_not_news() -> None:
    decel, hold = event(DeviceState.DECEL), event(DeviceState.HOLD)
    messages, link = heard((41, hold), (40, decel), (42, hold))
    assert messages == [hold, hold] and link.overtaken_frames == 1


def test_an_answer_may_be_overtaken() -> None:
    ack = Ack(3, MessageType.COMMIT, DeviceState.STREAMING)
    messages, _ = heard((41, event(DeviceState.HOLD)), (40, ack))
    assert messages[1] == ack


@pytest.mark.parametrize("first", [0, 1, 0x8000, 0xFFFF])
def test_counting_begins_anywhere_and_goes_round(first: int) -> None:
    frames = [((first + index) & 0xFFFF, event(DeviceState.HOLD)) for index in range(3)]
    assert len(heard(*frames)[0]) == 3


def test_a_device_that_begins_anew_is_heard() -> None:
    hold = event(DeviceState.HOLD)
    assert len(heard((OVERTAKEN_BY + 100, hold), (0, hold), (1, hold))[0]) == 3


def test_another_session_is_not_heard() -> None:
    messages, link = heard((1, event(DeviceState.HOLD)), session=SESSION + 1)
    assert messages == [] and link.foreign_frames == 1


def report(device_us: int = 1000, joints: int = 7) -> StateReport:
    return StateReport(device_us, DeviceState.HOLD, 0, 5, 3, 0, 0, 0, 0, 0, (0,) * joints, (0,) * joints)


def flooded(data: bytes, joints: int | None = None) -> tuple[list[Message], Link]:
    """All of it in one read."""
    line = Line()
    link = Link(line, lambda: 0, SESSION)
    link.joints = joints
    line.arriving = data
    return link.receive(), link


def test_copies_of_a_frame_are_looked_at_once() -> None:
    frames = [encode_frame(SESSION, number, report(1000 + number)) for number in range(3)]
    messages, link = flooded(b"".join(frame * 50 for frame in frames))
    assert messages == [report(1000), report(1001), report(1002)] and link.skipped_frames == 147


def test_of_too_many_frames_at_once_the_newest_count() -> None:
    count = 600
    messages, link = flooded(b"".join(encode_frame(SESSION, number, report(number)) for number in range(count)))
    assert messages == [report(number) for number in range(count - MOST_FRAMES, count)]
    assert link.skipped_frames == count - MOST_FRAMES


def test_what_waits_for_the_next_look_has_a_bound() -> None:
    line = Line()
    link = Link(line, lambda: 0, SESSION)
    for number in range(1000):
        line.arriving = encode_frame(SESSION, number, report(number))
        link.exchange_clock(lambda seconds: None, 0.0)
    assert len(link.receive()) == MOST_WAITING


@pytest.mark.parametrize("joints", [0, 3, 6, 8, 50])
def test_a_report_of_another_number_of_joints_is_a_bad_frame(joints: int) -> None:
    messages, link = flooded(encode_frame(SESSION, 1, report(joints=joints)), joints=7)
    assert messages == [] and link.bad_frames == 1


def test_an_answer_to_what_was_never_asked_does_not_move_the_clock() -> None:
    line = Line()
    link = Link(line, lambda: 5000, SESSION)
    for number in range(100):
        line.arriving = encode_frame(SESSION, number, TimeReply(number, 99, 99))
        assert link.receive() == []
    assert link.bad_frames == 100 and link.clock.uncertainty_us == float("inf")


def test_an_answer_counts_once() -> None:
    line = Line()
    link = Link(line, lambda: 5000, SESSION)
    link.exchange_clock(lambda seconds: None, 0.0)
    for number in range(50):
        line.arriving = encode_frame(SESSION, number, TimeReply(5000, 1, 1))
        link.receive()
    assert link.bad_frames == 49 and link.clock.uncertainty_us == 0.0


@pytest.mark.parametrize("minutes", [0.5, 5, 60])
def test_a_host_that_has_not_looked_for_long_misses_many_frames_and_finds_no_jump(minutes: float) -> None:
    frames = round(60_000 * minutes)
    _, link = heard((7, report(1000)), ((7 + frames) & 0xFFFF, report((1000 + 1000 * frames) & 0xFFFFFFFF)))
    assert link.sequence_jumps == 0
    _, link = heard((7, report(1000)), (30_007, report(11_000)))
    assert link.sequence_jumps == 1, "as many in 10 ms"
