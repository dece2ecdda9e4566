"""A journal as an MCAP file: messages for people, and beside them the records themselves, for the replay.

Times are Unix nanoseconds: the monotonic time of a record, shifted by the anchor in the run's header. Needs the `log`
extra.
"""

from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from edge import __version__
from edge.errors import InputError
from edge.inference.layout import parse_table
from edge.log.live import Shows
from edge.log.older import FIRST_PROFILE, messages_then
from edge.log.records import Kind, Record, decode
from edge.log.topics import TOPICS, Messages, schema, schema_name
from firmware_bridge.reading import told

if TYPE_CHECKING:
    from mcap.stream_reader import StreamReader
    from mcap.writer import Writer

PROFILE = "vla-edge-2"
"""In the file's header; the number is that of the form of journal and messages."""
METADATA = ("created_by", "name", "task", "seed", "bridge")
"""What of a run's header is the file's metadata too, which tools show without reading it; `name` is the arm's."""
CHUNK_BYTES = 256 * 1024
MOST_RECORD_BYTES = 64 << 20
MOST_CHUNK_BYTES = 16 << 20
"""Unpacked: far more than a chunk and the largest message that may follow it."""
MOST_WAITING = 1 << 16
"""Messages before the journal that they follow from; a flush writes both."""
LENGTH = struct.Struct("<I")
CAMERAS = "/camera/"
"""Before a camera's name: topics of frames, which do not follow from the journal."""


class LogError(InputError):
    """A log that cannot be written or read; the message names the fix."""


class Stream(Protocol):
    """What a log is written to."""

    def write(self, data: bytes, /) -> int: ...

    def tell(self) -> int: ...

    def flush(self) -> None: ...


class LogWriter:
    """Writes records and the messages that follow from them, and shows the messages where there is a `live` viewer.

    The stream must stay open until `finish`.
    """

    def __init__(self, stream: Stream, live: Shows | None = None) -> None:
        self._live = live
        self.records = 0
        self.missing = 0
        self._complete = False
        self._to_wall_ns = 0
        self._messages = Messages()
        self._last_wall_ns = 0
        self._writer = _open_writer(stream)
        self._schemas: dict[tuple[str, bytes], int] = {}
        self._channels = {topic: self.add_channel(topic, schema_name(topic), schema(topic)) for topic in TOPICS}

    def add_channel(self, topic: str, name: str, schema: bytes) -> int:
        """A channel of JSON messages, by a schema of that name."""
        if (name, schema) not in self._schemas:
            self._schemas[name, schema] = self._writer.register_schema(name, "jsonschema", schema)
        channel: int = self._writer.register_channel(topic, "json", self._schemas[name, schema])
        if self._live is not None:
            self._live.add_channel(channel, topic, name, schema)
        return channel

    def add_message(self, channel: int, content: dict[str, Any], wall_ns: int) -> None:
        """A message at a Unix time, ns."""
        data = encode_message(content)
        self._writer.add_message(channel, wall_ns, data, wall_ns)
        if self._live is not None:
            self._live.add_message(channel, data, wall_ns)

    def wall_ns(self, host_ns: int) -> int:
        """Unix time of a monotonic time of the run, ns; known once the header has been added."""
        return host_ns + self._to_wall_ns

    def add(self, batch: list[Record]) -> None:
        """Writes some records, in order; a gap in their numbers is counted."""
        for record in batch:
            self.missing = record.number - self.records
            self.records += 1
            if record.kind is Kind.HEADER:
                header = decode(record.kind, record.body)
                self._writer.add_metadata("vla-edge", _about(header))
                anchor = header["anchor"]
                self._to_wall_ns = anchor["wall_ns"] - anchor["monotonic_ns"]
            self._complete = self._complete or record.kind is Kind.ENDED
            for topic, content in self._messages.of(record):
                self._message(topic, content, self.wall_ns(record.host_ns))
        if batch:
            packed = b"".join(LENGTH.pack(len(data)) + data for data in (record.pack() for record in batch))
            content = {"records": b64encode(packed).decode("ascii")}
            self._message("/journal", content, self.wall_ns(batch[-1].host_ns))

    def count(self) -> None:
        """Writes how many records there are and how many are missing."""
        content = {"records": self.records, "missing": self.missing, "complete": self._complete}
        self._message("/log", content, self._last_wall_ns)

    def flush(self) -> None:
        """Ends the chunk in progress, so that what was written survives whatever comes."""
        self._writer.flush()

    def finish(self, dropped: int) -> None:
        """Writes the last count and the index; `dropped` is the ring's own count, which knows of a gap at the end."""
        self.missing = max(self.missing, dropped)
        self.count()
        self._writer.finish()

    def _message(self, topic: str, content: dict[str, Any], wall_ns: int) -> None:
        self._last_wall_ns = wall_ns
        self.add_message(self._channels[topic], content, wall_ns)


def _about(header: dict[str, Any]) -> dict[str, str]:
    told = {**header.get("settings", {}), **header.get("arm", {}), **header}
    return {name: str(told[name]) for name in METADATA if name in told}


def encode_message(content: dict[str, Any]) -> bytes:
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


class LogReader:
    """Reads the records back, and checks that every message for people agrees with the records."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.truncated = False
        """Known once the records have been read to their end."""
        self.checked = 0
        self._profile = PROFILE
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._messages = Messages()

    def records(self, on_frame: Callable[[str, bytes], None] | None = None) -> Iterator[Record]:
        """All records in order; `on_frame` is told the messages with frames between them, by topic.

        Ends early at damage (`truncated`). Raises `LogError` for a file that is no log.
        """
        for topic, _, data in self.messages():
            if on_frame is not None and topic.startswith(CAMERAS):
                on_frame(topic, data)
            yield from self._take(topic, data)

    def messages(self) -> Iterator[tuple[str, int, bytes]]:
        """Topic, Unix time in ns and JSON of every message, in order; ends and raises as `records` does."""
        topics: dict[int, str] = {}
        with _open_file(self.path) as file:
            for item in self._items(file):
                name = type(item).__name__
                if name == "Header":
                    if item.profile not in (FIRST_PROFILE, PROFILE):
                        raise LogError(f"{self.path}: profile '{item.profile}'; this version reads {PROFILE}")
                    self._profile = item.profile
                if name == "Channel":
                    topics[item.id] = item.topic
                elif name == "Message":
                    yield topics.get(item.channel_id, ""), item.log_time, item.data

    def _items(self, file: IO[bytes]) -> Iterator[Any]:
        from mcap.exceptions import InvalidMagic, McapError
        from zstandard import ZstdError

        reader = iter(_unpacked(_open_reader(file)))
        first = True
        while True:
            try:
                item = next(reader)
            except StopIteration:
                return
            except (McapError, ZstdError, ValueError, OverflowError, struct.error) as error:
                if first or isinstance(error, InvalidMagic):
                    raise LogError(f"{self.path} is not an MCAP file, or ends in its first bytes") from None
                self.truncated = True
                return
            first = False
            yield item

    def _take(self, topic: str, data: bytes) -> Iterator[Record]:
        if topic != "/journal":
            if topic != "/log" and not topic.startswith(CAMERAS):
                self._waiting.append((topic, data))
                if len(self._waiting) > MOST_WAITING:
                    raise LogError(f"{self.path}: has messages without their journal; record the run again")
            return
        for record in unpack_batch(data, self.path):
            try:
                record, messages = messages_then(self._messages, record, self._profile)
            except (ValueError, KeyError, TypeError) as error:
                raise LogError(f"{self.path}: record {record.number} is damaged: {told(error)}") from None
            for name, content in messages:
                self._check(name, encode_message(content))
            yield record

    def _check(self, topic: str, expected: bytes) -> None:
        if not self._waiting or self._waiting.popleft() != (topic, expected):
            raise LogError(f"{self.path}: a message of {topic} differs from the journal; the file was changed")
        self.checked += 1


def unpack_batch(data: bytes, path: Path) -> Iterable[Record]:
    """The records of one message of `/journal`. Raises `LogError`."""
    try:
        packed = b64decode(parse_table(data)["records"], validate=True)
        at, records = 0, []
        while at < len(packed):
            (length,) = LENGTH.unpack_from(packed, at)
            at += LENGTH.size
            records.append(Record.unpack(packed[at : at + length]))
            at += length
    except (ValueError, KeyError, TypeError, struct.error) as error:
        raise LogError(f"{path}: the journal is damaged: {told(error)}") from None
    return records


def _open_file(path: Path) -> IO[bytes]:
    if path.exists() and not path.is_file():
        raise LogError(f"{path}: is not a regular file; name a log, written with --log")
    try:
        return path.open("rb")
    except OSError as error:
        raise LogError(f"{path}: {error.strerror}") from None


def require_mcap(what: str) -> None:
    """Raises `LogError` with the fix when the `log` extra is not installed."""
    try:
        import mcap.writer  # noqa: F401
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise LogError(f"{what} needs the 'log' extra ({error.name} is missing): pip install 'vla-edge[log]'") from None


def _open_writer(stream: Stream) -> Writer:
    from mcap.writer import Writer

    writer = Writer(stream, chunk_size=CHUNK_BYTES)
    writer.start(profile=PROFILE, library=f"vla-edge {__version__}")
    return writer


class _Bounded:
    """A file that is read in pieces of a bounded size, whatever a record says of its own length."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MOST_RECORD_BYTES:
            raise ValueError(f"a record of {size} bytes")
        return self._file.read(size)


def _unpacked(reader: StreamReader) -> Iterator[Any]:
    """The records of a file, those of its chunks among them; no chunk is unpacked beyond its bound."""
    from mcap.stream_reader import breakup_chunk
    from zstandard import ZstdDecompressor

    for record in reader.records:
        if type(record).__name__ != "Chunk":
            yield record
            continue
        if record.compression == "zstd":
            with ZstdDecompressor().stream_reader(record.data) as stream:
                record.data = stream.read(min(record.uncompressed_size, MOST_CHUNK_BYTES) + 1)
        elif record.compression:
            raise ValueError(f"a chunk packed by '{record.compression}'")
        if len(record.data) > MOST_CHUNK_BYTES:
            raise ValueError("a chunk that unpacks to more than any log has")
        record.compression = ""
        yield from breakup_chunk(record, validate_crc=True)


def _open_reader(file: IO[bytes]) -> StreamReader:
    from mcap.stream_reader import StreamReader

    bounded: Any = _Bounded(file)
    return StreamReader(bounded, emit_chunks=True, validate_crcs=True, record_size_limit=MOST_RECORD_BYTES)
