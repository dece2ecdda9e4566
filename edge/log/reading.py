"""What a log holds for people: its messages by topic, as plain data. The journal beside them is for the replay."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.log.mcap_log import LogError, require_mcap

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
    from mcap.exceptions import McapError
    from mcap.stream_reader import StreamReader
    from zstandard import ZstdError

    topics: dict[int, str] = {}
    try:
        with Path(path).open("rb") as file:
            for item in StreamReader(file, validate_crcs=True).records:
                name = type(item).__name__
                if name == "Channel":
                    topics[item.id] = item.topic
                elif name == "Message" and topics[item.channel_id] != JOURNAL:
                    yield LogMessage(topics[item.channel_id], item.log_time, json.loads(item.data))
    except OSError as error:
        raise LogError(f"{path}: {error.strerror}") from None
    except (McapError, ZstdError, ValueError, KeyError) as error:
        if not topics:
            raise LogError(f"{path} is not an MCAP file, or ends in its first bytes") from error
