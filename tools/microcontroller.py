"""What the firmware needs of a microcontroller: flash, RAM, stack and instructions, against a budget.

Sizes and the deepest stack are read from the cross-compiled file; instructions are counted in QEMU while the port
executes the longest chunk that there is. Exit code 1 when a figure is over its budget.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from edge.arms import ArmProfile, load_arm
from edge.run.arm import ConnectedArm, client_in_real_time
from firmware_bridge.client import KnotChunk
from firmware_bridge.codes import MAX_KNOTS, DeviceState
from firmware_bridge.errors import BridgeError
from firmware_bridge.microcontroller import EmulatedDevice, compile_firmware
from firmware_bridge.transports import SerialTransport

BUDGET = {"flash_bytes": 32 * 1024, "ram_bytes": 40 * 1024, "stack_bytes": 4 * 1024}
"""Whatever the arm: what is held has room for the widest one."""
BUDGET_PER_AXIS = {"tick_instructions": 28_000, "commit_instructions": 420_000}
"""The latter for as many knots as a chunk can have."""
ENTRY = "reset_handler"
INTERRUPTS = ("tick_handler", "line_handler")
EXCEPTION_FRAME = 32 + 4
"""Eight words that the processor pushes, and one to align them."""
CALLED_THROUGH_TABLE = {
    "ve_device_receive": re.compile(r"^on_\w+$"),
    "dispatch": re.compile(r"^on_\w+$"),
}
"""Who calls through the core's one table of functions, and what the table holds."""

LEAD_US = 1_000_000
ATTEMPTS = 5
PATIENCE_S = 60.0
"""Much longer than the chunk takes: where the machine is busy, the emulated board runs slower than its clock says."""


@dataclass(frozen=True)
class Function:
    """One function of the program: bytes it pushes, whom it calls."""

    frame: int
    calls: frozenset[str]
    indirect: bool


def disassemble(elf: Path) -> dict[str, Function]:
    """Every function of the program, the libraries' included."""
    text = subprocess.run(["arm-none-eabi-objdump", "-d", str(elf)], capture_output=True, text=True, check=True).stdout
    functions = {}
    for block in re.split(r"\n(?=[0-9a-f]{8} <)", text):
        head = re.match(r"[0-9a-f]{8} <([^>]+)>:\n", block)
        if head:
            functions[head.group(1)] = _function(head.group(1), block)
    return functions


def _function(name: str, block: str) -> Function:
    frame = 0
    for registers in re.findall(r"\t(?:push|stmdb\tsp!,)\S*\s+\{([^}]*)\}", block):
        frame += 4 * sum(_count(part) for part in registers.split(","))
    frame += sum(int(size) for size in re.findall(r"\tsub(?:\.w|w)?\tsp, (?:sp, )?#(\d+)", block))
    frame += sum(int(size) for size in re.findall(r"\tstr(?:\.w|d)?\t.*\[sp, #-(\d+)\]!", block))
    targets = re.findall(r"\tb(?:l|lx|\.w|\.n)?\s+[0-9a-f]+ <([^>+]+)(?:\+0x[0-9a-f]+)?>", block)
    return Function(frame, frozenset(targets) - {name}, re.search(r"\tblx\tr\d", block) is not None)


def _count(registers: str) -> int:
    numbers = {"sp": 13, "lr": 14, "pc": 15, "sl": 10, "fp": 11, "ip": 12}
    ends = [numbers.get(part.strip(), -1) for part in registers.split("-")]
    ends = [end if end >= 0 else int(part.strip()[1:]) for end, part in zip(ends, registers.split("-"))]
    return ends[-1] - ends[0] + 1


def deepest(functions: dict[str, Function], name: str, above: tuple[str, ...] = ()) -> int:
    """Bytes of stack from `name` down. Raises `BridgeError` for recursion and for calls nobody can follow."""
    if name in above:
        raise BridgeError(f"recursion: {' -> '.join((*above, name))}")
    function = functions.get(name)
    if function is None:
        return 0
    calls = set(function.calls)
    if function.indirect:
        if name not in CALLED_THROUGH_TABLE:
            raise BridgeError(f"{name} calls through a pointer")
        calls |= {other for other in functions if CALLED_THROUGH_TABLE[name].match(other)}
    return function.frame + max((deepest(functions, call, (*above, name)) for call in calls), default=0)


def sizes(elf: Path) -> tuple[int, int]:
    """Bytes of flash and of RAM, the stack apart."""
    row = subprocess.run(["arm-none-eabi-size", str(elf)], capture_output=True, text=True, check=True).stdout
    text, data, bss = map(int, row.splitlines()[1].split()[:3])
    return text + data, data + bss


def exercise(board: EmulatedDevice, arm_name: str) -> str:
    """Has the device commit and execute the longest chunk, in motion throughout, and come to rest behind it.

    Returns an empty text, or what came in between: a busy machine may hold this process up for longer than the device
    waits for a heartbeat, and the stop that follows is no measurement.
    """
    arm = load_arm(arm_name)
    line = SerialTransport(board.port)
    client = client_in_real_time(line)
    client.commit_retry_ns = round(1e9 * PATIENCE_S)  # a host that emulates slowly is no reason to say it all again
    ConnectedArm.connect(arm, client).switch_on()
    here = client.wait_for_state().commanded_urad
    rows = tuple(tuple(q + 40 * knot * knot for q in here) for knot in range(MAX_KNOTS))
    speeds = tuple((round(80 * knot / 0.02),) * arm.dof for knot in range(MAX_KNOTS))
    start_us = int(client.link.clock.device_us(time.monotonic_ns()) + LEAD_US) & 0xFFFFFFFF
    client.send_chunk(KnotChunk(1, start_us, 20_000, rows, speeds))
    state, tick = client.wait_for_state(), 1
    deadline = time.monotonic() + PATIENCE_S
    while state.state not in (DeviceState.HOLD, DeviceState.FAULT):
        tick += 1
        client.heartbeat(tick)
        inbox = client.poll(time.monotonic_ns())
        state = inbox.state or state
        if inbox.refused:
            return f"the chunk was refused: {inbox.refused}"
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    line.close()
    executed = all(now >= last for now, last in zip(state.commanded_urad, rows[-1]))
    return "" if executed and state.state == DeviceState.HOLD else f"the chunk was not executed: {state}"


def budget(arm: ArmProfile) -> dict[str, int]:
    """The most that each figure may be."""
    return BUDGET | {name: arm.dof * most for name, most in BUDGET_PER_AXIS.items()}


def measure(arm_name: str) -> dict[str, int]:
    """All figures, by name."""
    arm = load_arm(arm_name)
    with tempfile.TemporaryDirectory() as folder:
        elf = Path(folder) / "firmware.elf"
        compile_firmware(elf, arm_name, arm.home_rad)
        flash, ram = sizes(elf)
        functions = disassemble(elf)
        interrupt = max(deepest(functions, name) for name in INTERRUPTS) + EXCEPTION_FRAME
        for _ in range(ATTEMPTS):
            board = EmulatedDevice(elf)
            try:
                trouble = exercise(board, arm_name)
                statistics, seen = board.statistics(), board.stack_used()
            finally:
                board.close()
            if not trouble:
                break
    if trouble:
        raise BridgeError(f"{ATTEMPTS} times in a row: {trouble}")
    if statistics.lost_bytes:
        raise BridgeError(f"{statistics.lost_bytes} bytes were lost before the core saw them")
    stack = deepest(functions, ENTRY) + interrupt
    if seen > stack:
        raise BridgeError(f"{seen} bytes of stack were used, and the disassembly shows only {stack}")
    return {
        "flash_bytes": flash,
        "ram_bytes": ram,
        "stack_bytes": stack,
        "stack_bytes_seen": seen,
        "tick_instructions": statistics.worst_tick_instructions,
        "commit_instructions": statistics.worst_byte_instructions,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--arm", default="franka")
    parser.add_argument("--json", type=Path, help="write the figures here as well")
    args = parser.parse_args()
    try:
        figures, most_of = measure(args.arm), budget(load_arm(args.arm))
    except BridgeError as error:
        print(f"microcontroller: {error}", file=sys.stderr)
        return 2
    if args.json:
        args.json.write_text(json.dumps({"figures": figures, "budget": most_of}, indent=2) + "\n")
    over = [name for name, most in most_of.items() if figures[name] > most]
    for name, value in figures.items():
        most = f"of {most_of[name]:>9,}" if name in most_of else ""
        print(f"{name:20} {value:>10,} {most}{'  OVER BUDGET' if name in over else ''}")
    return 1 if over else 0


if __name__ == "__main__":
    sys.exit(main())
