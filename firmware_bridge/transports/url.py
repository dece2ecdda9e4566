"""Bridge URLs: `serial:/dev/ttyACM0?baud=1000000`, `slcan:/dev/ttyACM0?bitrate=1000000`, `can:socketcan:can0?fd=1`."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from firmware_bridge.errors import PortError
from firmware_bridge.transports.base import Transport
from firmware_bridge.transports.can_stream import CanIds, CanTransport
from firmware_bridge.transports.python_can import PythonCanBus
from firmware_bridge.transports.serial_port import DEFAULT_BAUD, SerialTransport
from firmware_bridge.transports.slcan import SlcanBus

FORMS = {
    "serial": "serial:PATH?baud=N",
    "slcan": "slcan:PATH?bitrate=N&data_bitrate=N&fd=1&node=N&baud=N",
    "can": "can:INTERFACE:CHANNEL?bitrate=N&data_bitrate=N&fd=1&node=N",
}
DEFAULT_BITRATE = 1_000_000
DEFAULT_DATA_BITRATE = 5_000_000
MAX_NODE = 15


@dataclass(frozen=True)
class LineRate:
    """How fast a line is: `baud` of a serial line, else the rates of a CAN bus; no `data_bitrate` means classic CAN."""

    baud: int | None = None
    bitrate: int | None = None
    data_bitrate: int | None = None


@dataclass(frozen=True)
class BridgeUrl:
    """A bridge URL, read."""

    scheme: str
    target: str
    rate: LineRate
    node: int

    @staticmethod
    def parse(url: str) -> BridgeUrl:
        """Reads a URL without opening anything. Raises `PortError`."""
        parts = urlsplit(url)
        form = FORMS.get(parts.scheme)
        if form is None:
            raise PortError(
                f"'{url}': write {', '.join(FORMS.values())} (or sim:, fci:ADDRESS, feetech:PATH with edge-run)"
            )
        options = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        allowed = {part.split("=")[0] for part in form.split("?")[1].split("&")}
        unknown = sorted(set(options) - allowed)
        if unknown or not parts.path or (parts.scheme == "can" and not all(parts.path.partition(":"))):
            raise PortError(f"'{url}': write {form}" + (f"; unknown option {', '.join(unknown)}" if unknown else ""))

        def number(name: str, default: int, least: int = 1) -> int:
            text = options.get(name, str(default))
            if not (text.isascii() and text.isdigit()) or int(text) < least:
                raise PortError(f"'{url}': {name} must be a whole number from {least}")
            return int(text)

        if parts.scheme == "serial":
            return BridgeUrl(parts.scheme, parts.path, LineRate(baud=number("baud", DEFAULT_BAUD)), 0)
        fd, node = number("fd", 0, least=0), number("node", 0, least=0)
        if fd > 1 or node > MAX_NODE:
            raise PortError(f"'{url}': fd is 0 or 1, node is 0 to {MAX_NODE}")
        if "data_bitrate" in options and not fd:
            raise PortError(f"'{url}': data_bitrate belongs to CAN FD; add fd=1")
        rate = LineRate(
            baud=number("baud", DEFAULT_BAUD) if parts.scheme == "slcan" else None,
            bitrate=number("bitrate", DEFAULT_BITRATE),
            data_bitrate=number("data_bitrate", DEFAULT_DATA_BITRATE) if fd else None,
        )
        return BridgeUrl(parts.scheme, parts.path, rate, node)


def open_transport(url: str) -> Transport:
    """Opens the line that a bridge URL names. Raises `PortError`."""
    parsed = BridgeUrl.parse(url)
    rate, fd = parsed.rate, parsed.rate.data_bitrate is not None
    if parsed.scheme == "serial":
        assert rate.baud is not None
        return SerialTransport(parsed.target, rate.baud)
    assert rate.bitrate is not None
    if parsed.scheme == "slcan":
        assert rate.baud is not None
        port = SerialTransport(parsed.target, rate.baud)
        try:
            return CanTransport(SlcanBus(port, rate.bitrate, rate.data_bitrate), CanIds(parsed.node), fd)
        except PortError:
            port.close()
            raise
    interface, _, channel = parsed.target.partition(":")
    return CanTransport(PythonCanBus(interface, channel, rate.bitrate, rate.data_bitrate), CanIds(parsed.node), fd)
