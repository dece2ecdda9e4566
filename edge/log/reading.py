"""What a log holds for people: its messages by topic, as plain data. The journal beside them is for the replay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.inference.layout import parse_table
from edge.log.mcap_log import LogError, LogReader, require_mcap
from firmware_bridge.reading import ReadError

JOURNAL = "/journal"


@dataclass(frozen=True)
class LogMessage:
    """One message: its topic (docs/reference/telemetry.md), Unix time in ns, and what it says."""

    topic: str
    time_ns: int
    content: dict[str, Any]


def read_log(path: str | Path) -> Iterator[LogMessage]:
    """Messages in the order of writing; a log whose writer was killed ends early. Raises `LogError`."""
    require_mcap("reading a log")
    for topic, time_ns, data in LogReader(Path(path)).messages():
        if topic != JOURNAL:
            try:
                yield LogMessage(topic, time_ns, parse_table(data))
            except ReadError as error:
                raise LogError(f"{path}: a message of {topic} {error}; record the run again") from None
