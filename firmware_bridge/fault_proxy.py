"""A line that misbehaves on purpose: slow, late, lossy, jumbled, damaged, cut.

`FaultyTransport` wraps any `Transport`; what goes wrong is drawn from a seed and from the order of writes, so a run can
be replayed. `python -m firmware_bridge.fault_proxy --to serial:/dev/ttyACM0 --batch-ms 16` puts the same faults between
a pseudo-terminal and a real line.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
import tty
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

from firmware_bridge.errors import BridgeError
from firmware_bridge.transports import Transport, open_transport

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
    """Added to the delay, uniform; bytes stay in order."""
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
    """One direction. Time comes in with every call, in nanoseconds from any origin."""

    def __init__(self, faults: Faults, seed: int) -> None:
        self.faults = faults
        self._random = random.Random(seed)
        self._held: bytes | None = None
        self._free_ns = 0
        self._start_ns: int | None = None
        self._queue: deque[tuple[int, bytes]] = deque()

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

    def pull(self, now_ns: int) -> bytes:
        """What has come out by now."""
        out = bytearray()
        while self._queue and self._queue[0][0] <= now_ns:
            out += self._queue.popleft()[1]
        return bytes(out)

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
        begins_ns = max(now_ns + round(delay_ms * 1e6), self._free_ns)
        byte_ns = BITS_PER_BYTE * 1_000_000_000 // faults.baud if faults.baud else 0
        for at in range(len(data)) if byte_ns else ():
            self._queue.append((self._released(begins_ns + (at + 1) * byte_ns), data[at : at + 1]))
        if not byte_ns:
            self._queue.append((self._released(begins_ns), data))
        self._free_ns = begins_ns + len(data) * byte_ns

    def _released(self, at_ns: int) -> int:
        batch_ns = round(self.faults.batch_ms * 1e6)
        return at_ns if batch_ns == 0 else -(-at_ns // batch_ns) * batch_ns


class FaultyTransport:
    """A `Transport` with faults in both directions."""

    def __init__(self, inner: Transport, faults: Faults, seed: int, clock_ns: Callable[[], int]) -> None:
        self._inner, self._clock_ns = inner, clock_ns
        self._outward = FaultyLine(faults, 2 * seed)
        self._inward = FaultyLine(faults, 2 * seed + 1)
        self.change(faults)

    def change(self, faults: Faults) -> None:
        """From now on these go wrong; what is on its way stays as it is."""
        self._outward.faults = replace(faults, batch_ms=0.0)
        self._inward.faults = faults

    def pump(self) -> None:
        """Moves what is due towards the device; call it as often as time should matter."""
        now_ns = self._clock_ns()
        due = self._outward.pull(now_ns)
        if due:
            self._inner.write(due)
        arrived = self._inner.read()
        if arrived:
            self._inward.push(arrived, now_ns)

    def read(self) -> bytes:
        self.pump()
        return self._inward.pull(self._clock_ns())

    def write(self, data: bytes) -> None:
        self._outward.push(data, self._clock_ns())
        self.pump()

    def close(self) -> None:
        self._inner.close()


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
    parser.add_argument("--to", required=True, metavar="URL", help="the real line: serial:PATH?baud=N")
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
    try:
        inner = open_transport(args.to)
    except BridgeError as error:
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


if __name__ == "__main__":
    sys.exit(main())
