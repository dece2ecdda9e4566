"""A serial port, or the pseudo-terminal of the simulated device."""

from __future__ import annotations

import os
import select
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import serial

from firmware_bridge.errors import LinkLost, PortError
from firmware_bridge.transports.base import LineRate
from firmware_bridge.url import option

DEFAULT_BAUD = 1_000_000
READ_SIZE = 65536
TTY_SIZE = 4095
"""Most bytes that one read of a terminal brings."""
MAX_BACKLOG = 65536


@dataclass(frozen=True)
class SerialLine:
    """The port `target`."""

    FORM: ClassVar[str] = "serial:PATH?baud=N"
    target: str
    baud: int = option(DEFAULT_BAUD, least=1)

    @property
    def rate(self) -> LineRate:
        return LineRate(baud=self.baud)

    def open(self) -> SerialTransport:
        return SerialTransport(self.target, self.baud)


class SerialTransport:
    """Raw bytes over a tty; opened exclusively, so two hosts cannot talk to one arm."""

    def __init__(self, path: str, baud: int = DEFAULT_BAUD) -> None:
        try:
            self._port = serial.Serial(path, baud, timeout=0, write_timeout=0, exclusive=True)
        except (serial.SerialException, ValueError, OSError) as error:
            raise PortError(_open_failure(path, error)) from None
        self._path = path
        self._file: int = self._port.fileno()
        self._backlog = bytearray()

    def read(self) -> bytes:
        self._send_backlog()
        data = self._read_once()
        while TTY_SIZE <= len(data) < READ_SIZE:  # as much as a terminal hands out at once: there may be more
            more = self._read_once()
            if not more:
                break
            data += more
        return data

    def _read_once(self) -> bytes:
        try:
            return os.read(self._file, READ_SIZE)  # empty while nothing has arrived: pyserial sets VMIN to 0
        except BlockingIOError:
            return b""
        except OSError as error:
            raise LinkLost(f"{self._path}: the line broke ({error.strerror}); check cable and power") from None

    def write(self, data: bytes) -> None:
        self._backlog += data
        self._send_backlog()
        if len(self._backlog) > MAX_BACKLOG:
            raise LinkLost(f"{self._path}: the device takes no bytes; check cable and baud rate")

    def wait(self, seconds: float) -> None:
        """Returns when something has arrived, at the latest after `seconds`."""
        select.select([self._file], [], [], seconds)

    def close(self) -> None:
        self._port.close()

    def _send_backlog(self) -> None:
        if not self._backlog:
            return
        try:
            sent = os.write(self._file, self._backlog)
        except BlockingIOError:
            return
        except OSError as error:
            raise LinkLost(f"{self._path}: the line broke ({error.strerror}); check cable and power") from None
        del self._backlog[:sent]


def _open_failure(path: str, error: Exception) -> str:
    if not Path(path).exists():
        return f"{path}: there is no such port; plug the device in, or name another (ls /dev/tty*)"
    if not os.access(path, os.R_OK | os.W_OK):
        return f"{path}: no permission; sudo usermod -aG dialout $USER, then log in again"
    if "lock" in str(error).lower() or "busy" in str(error).lower():
        return f"{path}: another program has the port open; close it first"
    return f"{path}: cannot be opened as a serial port ({error})"
