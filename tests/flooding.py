"""A flood of a run's line and page, from processes of their own, so that only the machine is shared.

`line` stands between a pseudo-terminal and a device and, from one SIGUSR1 to the next, hands every frame of the device
to the host so many times. `enemy` waits and floods line and page, in turns, and presses the page's stop in the last.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import resource
import signal
import socket
import sys
import time
import tty
from contextlib import suppress

from firmware_bridge.transports import open_transport

COPIES = 50
HALF_OPEN = 1200
JUNK_EVERY_S = 0.01
IDLE_S = 100e-6
MOST_WAITING = 65536


def line(url: str) -> None:
    """Serves until it is ended; the first line of stdout names the port."""
    signals: list[int] = []
    signal.signal(signal.SIGUSR1, lambda number, frame: signals.append(number))
    with suppress(OSError):  # a wire does not wait for other programs; where this is refused, this one may
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    device = open_transport(url)
    master, slave = os.openpty()
    tty.setraw(slave)
    os.set_blocking(master, False)
    print(json.dumps({"port": os.ttyname(slave)}), flush=True)
    waiting, pending = b"", b""
    while True:
        with suppress(BlockingIOError):
            device.write(os.read(master, MOST_WAITING))
        *frames, pending = (pending + device.read()).split(b"\0")
        waiting += b"".join((frame + b"\0") * (COPIES if len(signals) % 2 else 1) for frame in frames)
        waiting = waiting[-MOST_WAITING:]
        if waiting:
            with suppress(BlockingIOError):
                waiting = waiting[os.write(master, waiting) :]
        if not frames:
            time.sleep(IDLE_S)


def enemy(port: int, token: str, line_pid: int, quiet_s: float, flood_s: float, turns: int) -> None:
    """Prints when (monotonic, s) each flood began and ended, and when the press was answered that ended the last."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4 * HALF_OPEN), hard))
    for turn in range(1, turns + 1):
        time.sleep(quiet_s)
        print(time.monotonic(), flush=True)
        os.kill(line_pid, signal.SIGUSR1)
        until_s = time.monotonic() + flood_s
        held = [_connected(port) for _ in range(HALF_OPEN)]
        while time.monotonic() < until_s:
            one = _connected(port)
            with suppress(OSError):
                one.sendall(b"POST /command HTTP/1.1\r\nX-Token: guessed\r\nContent-Length: x\r\n\r\n")
            held.pop(0).close()
            held.append(one)
            time.sleep(JUNK_EVERY_S)
        print(time.monotonic(), flush=True)
        if turn < turns:
            os.kill(line_pid, signal.SIGUSR1)
            for one in held:
                one.close()
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    asked.request("POST", "/command", "stop", {"X-Token": token})
    assert asked.getresponse().status == 200
    print(time.monotonic(), flush=True)


def _connected(port: int) -> socket.socket:
    """A connection; where the page has no time for one more, the attempt."""
    made = socket.socket()
    made.settimeout(5)
    with suppress(OSError):
        made.connect(("127.0.0.1", port))
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("line", "enemy"))
    parser.add_argument("arguments", nargs="+")
    args = parser.parse_args()
    if args.part == "line":
        line(*args.arguments)
    else:
        port, token, pid, quiet_s, flood_s, turns = args.arguments
        enemy(int(port), token, int(pid), float(quiet_s), float(flood_s), int(turns))
    sys.exit(0)
