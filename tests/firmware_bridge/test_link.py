"""The host's end of the line: whose frames it hears, and in what order it believes them."""

from __future__ import annotations

import pytest

from firmware_bridge.codes import DeviceState, StopReason
from firmware_bridge.framing import encode_frame
from firmware_bridge.link import OVERTAKEN_BY, Link
from firmware_bridge.messages import Ack, Event, Message, MessageType

SESSION = 7


class Line:
    """Brings what a test puts on it."""

    def __init__(self) -> None:
        self.arriving = b""

    def read(self) -> bytes:
        data, self.arriving = self.arriving, b""
        return data

    def write(self, data: bytes) -> None:
        raise AssertionError("nothing is sent here")

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
