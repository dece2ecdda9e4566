"""A line over UDP between the robot's computer and the one beside the arm: authenticated datagrams with whole frames.

What is lost stays lost: the frames inside are repeated, or not missed, as on any other line. Nothing waits here. A
network that is gone shows by its silence, which ends the run on one side and the motion on the other.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import ClassVar, Protocol

from firmware_bridge.errors import PortError
from firmware_bridge.transports.base import LineRate
from firmware_bridge.transports.datagrams import (
    MOST_FRAMES_SIZE,
    NUMBER_SIZE,
    Address,
    DeviceEnd,
    HostEnd,
    Packer,
    read_key,
)

DEFAULT_PORT = 47820
MOST_AT_ONCE = 64
"""Datagrams of one call: the work of a period is bounded whatever arrives."""
LARGEST = 2 * MOST_FRAMES_SIZE
OPENED_S = 3.0
POLL_S = 0.005
EXPEDITED = 0xB8
"""DSCP EF (RFC 3246), which Wi-Fi and switches serve first."""
FORM = "HOST:PORT"


class Datagrams(Protocol):
    """What carries datagrams, whole or not at all. Neither call blocks or raises."""

    def send(self, datagram: bytes, address: Address) -> None:
        """Hands one over; a network that takes none loses it."""

    def receive(self) -> list[tuple[bytes, Address]]:
        """What has arrived, at most `MOST_AT_ONCE`, and where from."""

    def close(self) -> None:
        """Frees the socket; a second call changes nothing."""


@dataclass(frozen=True)
class Place:
    """An address as people write it: HOST, HOST:PORT or [IPV6]:PORT."""

    host: str
    port: int = DEFAULT_PORT

    @staticmethod
    def read(text: str) -> Place:
        """Raises `ValueError`."""
        host, _, port = text[1:].partition("]") if text.startswith("[") else text.partition(":")
        port = port.removeprefix(":")
        if not host or (port and not (port.isdigit() and int(port) < 65536)):
            raise ValueError(f"an address is {FORM}, or HOST for port {DEFAULT_PORT}")
        return Place(host, int(port) if port else DEFAULT_PORT)

    @property
    def is_loopback(self) -> bool:
        """Whether it cannot be reached from, or lead to, another computer; a name other than localhost may."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class UdpSocket:
    """`Datagrams` of the system: `connected` to one address, or bound to one, for any sender. Raises `PortError`."""

    def __init__(self, place: Place, connected: bool) -> None:
        try:
            family, kind, _, _, address = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_DGRAM)[0]
            self._socket = socket.socket(family, kind)
        except (OSError, UnicodeError) as error:
            raise PortError(f"{place}: there is no such address ({_reason(error)})") from None
        try:
            self._socket.setblocking(False)
            if family == socket.AF_INET:
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, EXPEDITED)
            (self._socket.connect if connected else self._socket.bind)(address)
        except OSError as error:
            self._socket.close()
            what = "cannot be reached" if connected else "cannot be listened on"
            raise PortError(f"{place}: {what} ({_reason(error)})") from None
        self.is_refused = False
        """Whether the other computer has said that nobody listens at that port."""

    @property
    def place(self) -> Place:
        """Where it is bound to."""
        name = self._socket.getsockname()
        return Place(name[0], name[1])

    def send(self, datagram: bytes, address: Address) -> None:
        try:
            if address is None:
                self._socket.send(datagram)
            else:
                self._socket.sendto(datagram, address)
        except ConnectionRefusedError:
            self.is_refused = True
        except OSError:  # a full buffer, a cable that is out: lost, as anywhere else on the way
            pass

    def receive(self) -> list[tuple[bytes, Address]]:
        arrived: list[tuple[bytes, Address]] = []
        for _ in range(MOST_AT_ONCE):
            try:
                arrived.append(self._socket.recvfrom(LARGEST))
            except ConnectionRefusedError:
                self.is_refused = True
            except OSError:
                break
        return arrived

    def close(self) -> None:
        self._socket.close()


class NetworkTransport:
    """The host's end of a network line, a `Transport`. What is written before it is open is lost."""

    def __init__(self, datagrams: Datagrams, key: bytes, clock_ns: Callable[[], int], number: bytes) -> None:
        self._datagrams, self._clock_ns = datagrams, clock_ns
        self.end = HostEnd(key, number)
        self._packer = Packer()

    @property
    def is_open(self) -> bool:
        return self.end.session is not None

    def read(self) -> bytes:
        frames = b"".join(self.end.take(datagram) for datagram, _ in self._datagrams.receive())
        asks = self.end.asks(self._clock_ns())
        if asks:
            self._datagrams.send(asks, None)
        return frames

    def write(self, data: bytes) -> None:
        if self.end.session is not None:
            for frames in self._packer.pack(data):
                self._datagrams.send(self.end.session.seal(frames), None)

    def close(self) -> None:
        self._datagrams.close()


class NetworkListener:
    """The device's end: what `Terminal` is on a serial line, for one host at a time."""

    def __init__(
        self,
        datagrams: Datagrams,
        key: bytes,
        clock_ns: Callable[[], int],
        draw_number: Callable[[], bytes] = lambda: os.urandom(NUMBER_SIZE),
    ) -> None:
        self._datagrams, self._clock_ns = datagrams, clock_ns
        self.end = DeviceEnd(key, draw_number)
        self._packer = Packer()

    @property
    def is_clear(self) -> bool:
        """A network takes what it is given, or loses it."""
        return True

    def read(self) -> bytes:
        now_ns, frames = self._clock_ns(), b""
        for datagram, address in self._datagrams.receive():
            part, answer = self.end.take(datagram, address, now_ns)
            frames += part
            if answer:
                self._datagrams.send(answer, address)
        return frames

    def write(self, data: bytes) -> None:
        if data and self.end.session is not None:
            for frames in self._packer.pack(data):
                self._datagrams.send(self.end.session.seal(frames), self.end.address)

    def statistics(self) -> dict[str, int]:
        """What arrived and what was dropped."""
        counts = self.end.counts
        return {
            "datagrams": counts.passed,
            "datagrams_forged": counts.forged,
            "datagrams_replayed": counts.replayed,
            "datagrams_foreign": counts.foreign,
            "datagrams_late": counts.late,
        }

    def close(self) -> None:
        self._datagrams.close()


@dataclass(frozen=True)
class NetworkLine:
    """The device that listens at `target`."""

    FORM: ClassVar[str] = "net:HOST:PORT?key_file=FILE"
    target: str
    key_file: Path | None = None

    def __post_init__(self) -> None:
        if not Place.read(self.target).is_loopback and self.key_file is None:
            raise ValueError("a line to another computer needs a key; add key_file=FILE")

    @property
    def rate(self) -> LineRate | None:
        return None

    def open(self) -> NetworkTransport:
        key = read_key(self.key_file) if self.key_file is not None else b""
        place = Place.read(self.target)
        udp = UdpSocket(place, connected=True)
        transport = NetworkTransport(udp, key, time.monotonic_ns, os.urandom(NUMBER_SIZE))
        deadline_ns = time.monotonic_ns() + round(1e9 * OPENED_S)
        while True:
            transport.read()
            if transport.is_open:
                return transport
            if time.monotonic_ns() > deadline_ns:
                break
            time.sleep(POLL_S)
        transport.close()
        raise PortError(f"net:{place}: {self._why(transport.end, udp.is_refused)}")

    def _why(self, end: HostEnd, is_refused: bool) -> str:
        if end.is_busy:
            return "another host has this line; end its run first"
        if is_refused:
            return "nobody listens there; start edge-adapter --listen beside the arm, and compare the port"
        return (
            f"no answer in {OPENED_S:.0f} s; check that edge-adapter --listen runs there, that both ends have the "
            "same key file, and the firewall (UDP)"
        )


def listen(text: str, key_file: Path | None) -> tuple[NetworkListener, Place]:
    """Listens at HOST:PORT; by default on every address with a key, and on this computer alone without.

    Raises `PortError`.
    """
    key = read_key(key_file) if key_file is not None else b""
    try:
        place = Place.read(text) if text else Place("0.0.0.0" if key else "127.0.0.1")
    except ValueError as error:
        raise PortError(f"--listen {text}: {error}") from None
    if not key and not place.is_loopback:
        raise PortError(f"--listen {place}: others could move the arm through this; give both ends a --key-file")
    udp = UdpSocket(place, connected=False)
    return NetworkListener(udp, key, time.monotonic_ns), udp.place


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
