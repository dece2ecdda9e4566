"""A commit without an answer: sent again ever more slowly, and given up at its time."""

from __future__ import annotations

import itertools

import pytest

from firmware_bridge.client import COMMIT_RETRY_NS
from firmware_bridge.codes import Refusal
from firmware_bridge.messages import Commit, Message
from tests.support import Rig, swing

LEAD_US = 500_000


def test_copies_of_a_commit_do_not_pile_up_on_a_slow_line(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig().armed()
    try:
        link, began_us = rig.client.link, rig.device.now_us
        sent_ns: list[int] = []

        def send(message: Message) -> int:
            if isinstance(message, Commit):
                sent_ns.append(1000 * (rig.device.now_us - began_us))
            return 0

        monkeypatch.setattr(link, "send", send)
        monkeypatch.setattr(link, "receive", list)
        rig.client.send_chunk(swing(1, began_us + LEAD_US))
        refused = []
        for _ in range(2 * LEAD_US // 1000):
            rig.device.tick()
            refused += rig.client.poll(1000 * rig.device.now_us).refused
        waits = [round((b - a) / COMMIT_RETRY_NS) for a, b in itertools.pairwise(sent_ns)]
        assert waits == [1, 2, 4, 8], "doubled every time, and the last would have come too late"
        assert [(chunk, nak.refusal) for chunk, nak in refused] == [(1, Refusal.LEAD_TOO_SHORT)]
    finally:
        rig.close()
