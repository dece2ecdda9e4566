"""A line that misbehaves on purpose: slow, late, lossy, jumbled, damaged, cut.

`FaultyTransport` wraps any `Transport`, `FaultyNetwork` is a whole network line; what goes wrong is drawn from a seed
and from the order of writes, so a run can be replayed. `python -m firmware_bridge.fault_proxy --to
serial:/dev/ttyACM0 --batch-ms 16` puts the same faults between a pseudo-terminal and a real line, `--to udp:HOST:PORT`
between a host and an `edge-adapter --listen`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import tty
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from heapq import heappop, heappush

from firmware_bridge.errors import BridgeError
from firmware_bridge.transports import Transport, open_transport
from firmware_bridge.transports.datagrams import NUMBER_SIZE, Address
from firmware_bridge.transports.network import NetworkListener, NetworkTransport, Place, UdpSocket

BITS_PER_BYTE = 10
"""Start bit, eight data bits, stop bit."""
MOST_WAITING = 65536


@dataclass(frozen=True)
class Faults:
    """What goes wrong, in both directions unless it says so. Probabilities are per write, or per byte where said."""

    baud: int = 0
    """Bits per second of a paced line; 0 for one without a rate."""
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    """Added to the delay, uniform; bytes stay in order, datagrams overtake each other."""
    batch_ms: float = 0.0
    """Bytes towards the host come out only at multiples of this, as from an FTDI adapter (16 ms by default)."""
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    """A write changes places with the next one."""
    truncate: float = 0.0
    """A write loses its end."""
    byte_loss: float = 0.0
    bit_flip: float = 0.0
    garbage: float = 0.0
    """Up to 300 random bytes before a write."""
    disconnect_s: tuple[float, float] = (0.0, 0.0)
    """From when to when, after the start, nothing passes."""


class FaultyLine:
    """One direction. Time comes in with every call, in nanoseconds from any origin.

    With `datagrams` a write stays one, whole or lost, and each has its own delay.
    """

    def __init__(self, faults: Faults, seed: int, datagrams: bool = False) -> None:
        self.faults = faults
        self._datagrams = datagrams
        self._random = random.Random(seed)
        self._held: bytes | None = None
        self._free_ns = 0
        self._start_ns: int | None = None
        self._queue: list[tuple[int, int, bytes]] = []
        self._pushed = 0

    def change(self, faults: Faults) -> None:
        """From now on these go wrong; what is on its way stays as it is."""
        self.faults, self._start_ns = faults, None

    def push(self, data: bytes, now_ns: int) -> None:
        """Takes one write."""
        if self._start_ns is None:
            self._start_ns = now_ns
        faults, draw = self.faults, self._random
        since_s = (now_ns - self._start_ns) / 1e9
        if faults.disconnect_s[0] <= since_s < faults.disconnect_s[1] or draw.random() < faults.loss:
            return
        if self._held is None and draw.random() < faults.reorder:
            self._held = data
            return
        writes = [data] if self._held is None else [data, self._held]
        self._held = None
        for write in writes:
            copies = 2 if draw.random() < faults.duplicate else 1
            for _ in range(copies):
                self._schedule(self._damage(write), now_ns)

    def pull(self, now_ns: int) -> list[bytes]:
        """What has come out by now: the bytes of a line in pieces, or datagrams."""
        out = []
        while self._queue and self._queue[0][0] <= now_ns:
            out.append(heappop(self._queue)[2])
        return out

    def _damage(self, data: bytes) -> bytes:
        faults, draw = self.faults, self._random
        if faults.truncate and draw.random() < faults.truncate:
            data = data[: draw.randrange(len(data))]
        if faults.byte_loss:
            data = bytes(byte for byte in data if draw.random() >= faults.byte_loss)
        if faults.bit_flip:
            data = bytes(byte ^ (1 << draw.randrange(8)) if draw.random() < faults.bit_flip else byte for byte in data)
        if faults.garbage and draw.random() < faults.garbage:
            data = draw.randbytes(draw.randrange(300)) + data
        return data

    def _schedule(self, data: bytes, now_ns: int) -> None:
        faults = self.faults
        delay_ms = faults.delay_ms + faults.jitter_ms * self._random.random()
        begins_ns = now_ns + round(delay_ms * 1e6)
        if not self._datagrams or faults.baud:
            begins_ns = max(begins_ns, self._free_ns)
        byte_ns = BITS_PER_BYTE * 1_000_000_000 // faults.baud if faults.baud else 0
        self._free_ns = begins_ns + len(data) * byte_ns
        if self._datagrams or not byte_ns:
            self._release(self._free_ns, data)
            return
        for at in range(len(data)):
            self._release(begins_ns + (at + 1) * byte_ns, data[at : at + 1])

    def _release(self, at_ns: int, data: bytes) -> None:
        batch_ns = round(self.faults.batch_ms * 1e6)
        self._pushed += 1
        heappush(self._queue, (at_ns if batch_ns == 0 else -(-at_ns // batch_ns) * batch_ns, self._pushed, data))


class FaultyTransport:
    """A `Transport` with faults in both directions."""

    def __init__(self, inner: Transport, faults: Faults, seed: int, clock_ns: Callable[[], int]) -> None:
        self._inner, self._clock_ns = inner, clock_ns
        self._outward = FaultyLine(faults, 2 * seed)
        self._inward = FaultyLine(faults, 2 * seed + 1)
        self.change(faults)

    def change(self, faults: Faults) -> None:
        """From now on these go wrong; what is on its way stays as it is."""
        self._outward.change(replace(faults, batch_ms=0.0))
        self._inward.change(faults)

    def pump(self) -> None:
        """Moves what is due towards the device; call it as often as time should matter."""
        now_ns = self._clock_ns()
        due = b"".join(self._outward.pull(now_ns))
        if due:
            self._inner.write(due)
        arrived = self._inner.read()
        if arrived:
            self._inward.push(arrived, now_ns)

    def read(self) -> bytes:
        self.pump()
        return b"".join(self._inward.pull(self._clock_ns()))

    def write(self, data: bytes) -> None:
        self._outward.push(data, self._clock_ns())
        self.pump()

    def close(self) -> None:
        self._inner.close()


class FaultyDatagrams:
    """One end of a network in this process: what it sends goes into one line, what it receives comes out of another."""

    def __init__(self, outward: FaultyLine, inward: FaultyLine, clock_ns: Callable[[], int]) -> None:
        self._outward, self._inward, self._clock_ns = outward, inward, clock_ns

    def send(self, datagram: bytes, address: Address) -> None:
        self._outward.push(datagram, self._clock_ns())

    def receive(self) -> list[tuple[bytes, Address]]:
        return [(datagram, None) for datagram in self._inward.pull(self._clock_ns())]

    def close(self) -> None:
        """Nothing is held."""


class FaultyNetwork:
    """A network line with both its ends, and a network between them that misbehaves; `inner` is the device."""

    KEY = bytes(range(32))

    def __init__(self, inner: Transport, faults: Faults, seed: int, clock_ns: Callable[[], int]) -> None:
        self._inner = inner
        self.outward, self.inward = FaultyLine(faults, 2 * seed, True), FaultyLine(faults, 2 * seed + 1, True)
        draw = random.Random(seed)
        host, device = (
            FaultyDatagrams(*lines, clock_ns) for lines in ((self.outward, self.inward), (self.inward, self.outward))
        )
        self.host = NetworkTransport(host, self.KEY, clock_ns, draw.randbytes(NUMBER_SIZE))
        self.device = NetworkListener(device, self.KEY, clock_ns, lambda: draw.randbytes(NUMBER_SIZE))

    def change(self, faults: Faults) -> None:
        """From now on these go wrong; what is on its way stays as it is."""
        self.outward.change(faults)
        self.inward.change(faults)

    def pump(self) -> None:
        """Moves what is due into the device and what it says out; call it as often as time should matter."""
        due = self.device.read()
        if due:
            self._inner.write(due)
        self.device.write(self._inner.read())

    def read(self) -> bytes:
        self.pump()
        return self.host.read()

    def write(self, data: bytes) -> None:
        self.host.write(data)
        self.pump()

    def close(self) -> None:
        self._inner.close()


class Relay:
    """Between a host and a device that listens, as separate processes: the datagrams themselves, without any key."""

    def __init__(self, device: Place, faults: Faults, seed: int, clock_ns: Callable[[], int]) -> None:
        self._clock_ns = clock_ns
        self._device = UdpSocket(device, connected=True)
        self._host = UdpSocket(Place("127.0.0.1", 0), connected=False)
        self._outward, self._inward = FaultyLine(faults, 2 * seed, True), FaultyLine(faults, 2 * seed + 1, True)
        self._address: Address = None

    @property
    def place(self) -> Place:
        """Where the host finds the device."""
        return self._host.place

    def pump(self) -> bool:
        """Moves what has come and what is due; whether anything came."""
        now_ns = self._clock_ns()
        asked, answered = self._host.receive(), self._device.receive()
        for datagram, self._address in asked:
            self._outward.push(datagram, now_ns)
        for datagram, _ in answered:
            self._inward.push(datagram, now_ns)
        for datagram in self._outward.pull(now_ns):
            self._device.send(datagram, None)
        for datagram in self._inward.pull(now_ns):
            self._host.send(datagram, self._address)
        return bool(asked or answered)

    def close(self) -> None:
        self._host.close()
        self._device.close()


def serve(transport: FaultyTransport, master: int, stop: Callable[[], bool]) -> None:
    """Moves bytes between a pseudo-terminal's master and the faulty line until told to stop."""
    os.set_blocking(master, False)
    out = b""
    while not stop():
        try:
            data = os.read(master, 65536)
        except BlockingIOError:
            data = b""
        if data:
            transport.write(data)
        out += transport.read()
        if out:
            try:
                out = out[os.write(master, out) :]
            except BlockingIOError:
                out = out[-MOST_WAITING:]  # nobody reads: a line holds only so much
        if not data:
            time.sleep(100e-6)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m firmware_bridge.fault_proxy", description=__doc__)
    parser.add_argument(
        "--to", required=True, metavar="URL", help="the real line: serial:PATH?baud=N, or udp:HOST:PORT"
    )
    parser.add_argument("--seed", type=int, default=0)
    for option in fields(Faults):
        name = "--" + option.name.replace("_", "-")
        if option.name == "disconnect_s":
            parser.add_argument(name, type=float, nargs=2, default=option.default, metavar=("FROM", "TO"))
        else:
            parser.add_argument(name, type=type(option.default), default=option.default, metavar="N")
    args = parser.parse_args(argv)
    values = {option.name: getattr(args, option.name) for option in fields(Faults)}
    faults = Faults(**{**values, "disconnect_s": tuple(values["disconnect_s"])})
    scheme, _, target = args.to.partition(":")
    try:
        if scheme == "udp":
            return _relay(Relay(Place.read(target), faults, args.seed, time.monotonic_ns), args)
        inner = open_transport(args.to)
    except (BridgeError, ValueError) as error:
        print(f"fault_proxy: {error}", file=sys.stderr)
        return 2
    master, slave = os.openpty()
    tty.setraw(slave)
    print(json.dumps({"port": os.ttyname(slave), "to": args.to, "seed": args.seed}), flush=True)
    try:
        serve(FaultyTransport(inner, faults, args.seed, time.monotonic_ns), master, lambda: False)
    except KeyboardInterrupt:
        pass
    except BridgeError as error:
        print(f"fault_proxy: {error}", file=sys.stderr)
        return 1
    return 0


def _relay(relay: Relay, args: argparse.Namespace) -> int:
    print(json.dumps({"listen": str(relay.place), "to": args.to, "seed": args.seed}), flush=True)
    try:
        while True:
            if not relay.pump():
                time.sleep(100e-6)
    except KeyboardInterrupt:
        return 0
    finally:
        relay.close()


if __name__ == "__main__":
    sys.exit(main())
