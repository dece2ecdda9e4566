"""Shared by the tests of the log: a run in lockstep with every tap in place."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

from mcap.reader import make_reader
from mcap.writer import Writer

from edge.errors import SafetyStop
from edge.inference.layout import pack_plain
from edge.log.mcap_log import PROFILE, LogWriter, encode_message
from edge.log.records import Journal, Kind, Record, RingJournal
from edge.log.taps import open_client, open_recorder, tapped_planner
from edge.plan.replanner import ControlSettings
from edge.run.controller import Controller
from edge.run.made_from import pack_controller
from firmware_bridge.client import DeviceClient
from firmware_bridge.errors import LinkLost
from tests.edge.run.test_controller import LEAD_US, SHAPE, STEP_S, Script, ScriptedPlanner, wave
from tests.support import FRANKA, Rig

PERIOD_MS = 4
HEADER = {
    "anchor": {"wall_ns": 1_800_000_000_000_000_000, "monotonic_ns": 0},
    "created_by": "a test",
    "arm": {"name": "franka"},
    "frames": [asdict(frame) for frame in FRANKA.frames],
    "settings": {"task": "wave", "seed": 0},
}


class LoggedRig(Rig):
    """A rig whose client leaves records."""

    def __init__(self, push: Callable[[bytes], bool]) -> None:
        self.journal: Journal = RingJournal(push, lambda: self.host_ns)
        super().__init__()

    def new_client(self, session: int) -> DeviceClient:
        self.journal.put(Kind.HEADER, pack_plain(HEADER))
        return open_client(self.device, lambda: self.host_ns, session, self._idle, self.journal)


class LoggedRun:
    """The real firmware and the real controller on a simulated clock; `records` is what they leave."""

    def __init__(self, script: Script = wave, latency_us: Callable[[int], int] = lambda _: 40_000) -> None:
        self._packed: list[bytes] = []
        self.rig = LoggedRig(self._push).armed()
        self.stop: str | None = None
        self.tick = 1
        journal = self.rig.journal
        self.controller = Controller(
            self.rig.client,
            tapped_planner(ScriptedPlanner(self.rig, script, latency_us), journal),
            FRANKA,
            SHAPE,
            STEP_S,
            ControlSettings(5, LEAD_US),
            open_recorder(1000, 7, journal),
            latency_us(0),
        )
        journal.put(Kind.CONTROLLER, pack_controller(self.controller, STEP_S, latency_us(0)))

    def _push(self, data: bytes) -> bool:
        self._packed.append(data)
        return True

    def go(self, milliseconds: int) -> LoggedRun:
        """Lets time pass with a control step every 4 ms, as `Session` does; a stop is kept as text."""
        try:
            for _ in range(milliseconds // PERIOD_MS):
                self.tick += 1
                now_ns = self.rig.host_ns
                self.controller.step(now_ns, self.tick)
                self.rig.client.keep_clock(now_ns, slack_s=0.003)
                self.rig.device.tick(round(PERIOD_MS * self.rig.rate))
        except (SafetyStop, LinkLost) as stop:
            self.stop = str(stop)
        return self

    def end(self) -> LoggedRun:
        """Stops the arm as a run does, and ends the log."""
        self.rig.client.stop()
        self.rig.device.tick(1000)
        self.rig.client.wait_for_state()
        self.rig.journal.put(Kind.ENDED, pack_plain({"ended": "safety stop" if self.stop else "duration"}))
        return self

    @property
    def records(self) -> list[Record]:
        return [Record.unpack(data) for data in self._packed]

    def close(self) -> None:
        self.rig.close()


def rewrite(path: Path, change: Callable[[str, dict[str, Any]], dict[str, Any] | None]) -> None:
    """Writes a log again with each message as `change` returns it, by topic and content; None leaves it out."""
    with path.open("rb") as file:
        rows = [(s, c, m) for s, c, m in make_reader(file).iter_messages(log_time_order=False)]
    stream, channels = BytesIO(), dict[str, int]()
    writer = Writer(stream)
    writer.start(profile=PROFILE, library="")
    for schema, channel, message in rows:
        assert schema is not None
        if channel.topic not in channels:
            number = writer.register_schema(schema.name, schema.encoding, schema.data)
            channels[channel.topic] = writer.register_channel(channel.topic, "json", number)
        content = change(channel.topic, json.loads(message.data))
        if content is not None:
            data = encode_message(content)
            writer.add_message(channels[channel.topic], message.log_time, data, message.publish_time)
    writer.finish()
    path.write_bytes(stream.getvalue())


def write_log(path: Path, records: list[Record]) -> Path:
    """The records as an MCAP file, flushed every second as a run's writer does."""
    with path.open("wb") as file:
        log = LogWriter(file)
        for first in range(0, len(records), 1500):
            log.add(records[first : first + 1500])
            log.count()
            log.flush()
        log.finish(0)
        os.fsync(file.fileno())
    return path
