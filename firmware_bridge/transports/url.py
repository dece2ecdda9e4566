"""Bridge URLs: `serial:/dev/ttyACM0?baud=1000000`."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from firmware_bridge.errors import PortError
from firmware_bridge.transports.base import Transport
from firmware_bridge.transports.serial_port import DEFAULT_BAUD, SerialTransport


def open_transport(url: str) -> Transport:
    """Opens the line that a bridge URL names. Raises `PortError`."""
    parts = urlsplit(url)
    if parts.scheme != "serial":
        raise PortError(f"'{url}': this version opens serial:PATH?baud=N (and sim: from edge-run)")
    options = parse_qs(parts.query, keep_blank_values=True)
    unknown = set(options) - {"baud"}
    if unknown or not parts.path:
        raise PortError(
            f"'{url}': write serial:PATH?baud=N" + (f"; unknown option {', '.join(sorted(unknown))}" if unknown else "")
        )
    text = options.get("baud", [str(DEFAULT_BAUD)])[-1]
    if not text.isdigit() or int(text) == 0:
        raise PortError(f"'{url}': baud must be a positive whole number")
    return SerialTransport(parts.path, int(text))
