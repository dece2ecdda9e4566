"""The firmware on a microcontroller: cross-compiled for the LM3S6965, and run in QEMU's emulation of that board.

The drive behind it is simulated: the arm is at the set-point of one period before.
"""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from firmware_bridge.errors import BridgeError, BuildError
from firmware_bridge.native import FIRMWARE, firmware_hash

PORT = FIRMWARE / "ports" / "lm3s6965"
FLAGS = ("-std=c99", "-Os", "-Wall", "-Wextra", "-Werror", "-mcpu=cortex-m3", "-mthumb", "-ffp-contract=off")
SECTIONS = ("-ffunction-sections", "-fdata-sections", "-Wl,--gc-sections", "-nostartfiles")
CYCLE_NS = 20
"""The board's clock runs at 50 MHz."""
READER_POLL_S = 1.1
"""QEMU looks once a second whether somebody has opened its pseudo-terminal."""
RAM_AT, RAM_SIZE = 0x2000_0000, 64 * 1024
STACK_PAINT = 0xA5A5A5A5


def compile_firmware(out: Path, arm: str, start_rad: tuple[float, ...]) -> None:
    """Cross-compiles core and port for the arm of this name into the ELF file `out`. Raises `BuildError`."""
    compiler = shutil.which("arm-none-eabi-gcc")
    if compiler is None:
        raise BuildError(
            "the microcontroller port needs arm-none-eabi-gcc: "
            "sudo apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi"
        )
    start = ",".join(repr(q) for q in start_rad)
    defines = [f"-DVE_FIRMWARE_HASH=0x{firmware_hash():08x}u", f"-DVE_PROFILE_INDEX=VE_PROFILE_{arm.upper()}"]
    defines += [f"-DVE_START_RAD={{{start}}}", f"-I{FIRMWARE / 'core'}", f"-I{PORT}"]
    units = [str(path) for folder in (FIRMWARE / "core", PORT) for path in sorted(folder.glob("*.c"))]
    link = ["-T", str(PORT / "lm3s6965.ld"), "-o", str(out), "-lm"]
    result = subprocess.run([compiler, *FLAGS, *SECTIONS, *defines, *units, *link], capture_output=True, text=True)
    if result.returncode != 0:
        raise BuildError(f"the firmware does not cross-compile: {result.stderr.strip().splitlines()[0]}")


def symbols(elf: Path) -> dict[str, int]:
    """Addresses by name."""
    listing = subprocess.run(["arm-none-eabi-nm", str(elf)], capture_output=True, text=True, check=True).stdout
    return {name: int(address, 16) for address, name in re.findall(r"^(\w+) \w (\S+)$", listing, re.MULTILINE)}


@dataclass(frozen=True)
class PortStatistics:
    """What the port has measured of itself; instructions, since the emulated board executes one per nanosecond."""

    worst_tick_instructions: int
    worst_byte_instructions: int
    ticks: int
    lost_bytes: int


class EmulatedDevice:
    """The cross-compiled firmware in QEMU, its UART on a pseudo-terminal.

    Time is counted in instructions (`-icount`), so a busy host slows the board down and does not make it late.
    """

    def __init__(self, elf: Path) -> None:
        program = shutil.which("qemu-system-arm")
        if program is None:
            raise BuildError("the emulated board needs QEMU: sudo apt-get install qemu-system-arm")
        self._symbols = symbols(elf)
        self._folder = tempfile.TemporaryDirectory(prefix="vla-edge-qemu-")
        monitor = Path(self._folder.name) / "qmp"
        command = [program, "-M", "lm3s6965evb", "-display", "none", "-kernel", str(elf), "-serial", "pty"]
        command += ["-icount", "shift=0,sleep=on,align=off", "-qmp", f"unix:{monitor},server=on,wait=off"]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], 10.0)
        found = re.search(r"/dev/pts/\d+", self.process.stdout.readline() if ready else "")
        if found is None:
            self.process.kill()
            raise BridgeError("QEMU did not start")
        self.port = found.group()
        self._keep_open = os.open(self.port, os.O_RDWR | os.O_NOCTTY)
        self._monitor = _Monitor(monitor)
        time.sleep(READER_POLL_S)

    def statistics(self) -> PortStatistics:
        """Reads the port's counters."""
        raw = self._memory(self._symbols["ve_port_statistics"], 16)
        tick, byte, ticks, lost = struct.unpack("<4I", raw)
        return PortStatistics(tick * CYCLE_NS, byte * CYCLE_NS, ticks, lost)

    def stack_used(self) -> int:
        """Bytes of stack that have ever been written, interrupts included."""
        free_from = self._symbols["ve_bss_end"]
        raw = self._memory(free_from, RAM_AT + RAM_SIZE - free_from)
        words = struct.unpack(f"<{len(raw) // 4}I", raw)
        untouched = next((index for index, word in enumerate(words) if word != STACK_PAINT), len(words))
        return len(raw) - 4 * untouched

    def close(self) -> None:
        """Ends QEMU."""
        os.close(self._keep_open)
        self._monitor.close()
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._folder.cleanup()

    def _memory(self, address: int, size: int) -> bytes:
        file = Path(self._folder.name) / "memory"
        self._monitor.command("pmemsave", val=address, size=size, filename=str(file))
        return file.read_bytes()


class _Monitor:
    """QEMU's machine protocol, as much of it as is needed here."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(5.0)
        self._socket.connect(str(path))
        self._stream = self._socket.makefile("rw")
        self._stream.readline()
        self.command("qmp_capabilities")

    def command(self, name: str, **arguments: Any) -> None:
        self._stream.write(json.dumps({"execute": name, "arguments": arguments}) + "\n")
        self._stream.flush()
        while True:
            answer = json.loads(self._stream.readline())
            if "return" in answer:
                return
            if "error" in answer:
                raise BridgeError(f"QEMU refuses {name}: {answer['error']['desc']}")

    def close(self) -> None:
        self._stream.close()
        self._socket.close()
