"""The simulated bus: what the servos answer, when it would have crossed a line of 1 Mbaud, and what gets lost on it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.packets import BROADCAST, Instruction, Packet, PacketReader
from firmware_bridge.adapters.feetech.simulated_servo import SIZE, SimulatedServo
from firmware_bridge.adapters.feetech.timing import BAUD
from firmware_bridge.bus_load import BITS_PER_BYTE

BYTE_NS = BITS_PER_BYTE * 1_000_000_000 // BAUD
RETURN_DELAY_UNIT_NS = 2000
LEAST_DELAY_NS = 100_000
"""A table of the vendor's says that less is not to be had; the worse case is simulated."""
LONGEST_JUMP_NS = 20_000_000
LATE_NS = (12_000_000, 45_000_000)
IDLE_A = 0.03
"""What a servo draws that does nothing (ours)."""
RESTART_V = 3.5
"""Below it a servo's processor starts anew (ours: under the 4 V that register 15 allows)."""
RESTART_S = 0.3
"""In which it does not answer (ours)."""
SILENCE_NS = 1_000_000
"""A packet that is not complete after this is none (ours)."""


@dataclass(frozen=True)
class LineFaults:
    """What happens to packets, of either direction: shares of them, by a seed. `echo` sends the host its own bytes.

    `late` is a share of the answers that come 12 to 45 ms later, and what follows them behind them: a USB adapter or a
    busy computer holds them back.
    """

    corrupted: float = 0.0
    dropped: float = 0.0
    echo: bool = False
    seed: int = 0
    late: float = 0.0


@dataclass(frozen=True)
class Supply:
    """What the servos are supplied from: volts without load, and the resistance of supply and cable."""

    volts: float
    ohms: float = 0.0


class SimulatedBus:
    """Servos on one line. `receive` takes the host's bytes at a time and gives the answers, each with its own time.

    The line is half duplex: an answer begins when the line is free and the servo's return delay is over.
    """

    def __init__(self, servos: Mapping[int, SimulatedServo], faults: LineFaults, now_ns: int) -> None:
        self.servos = dict(servos)
        self.faults = faults
        self.packets = self.damaged = 0
        self.supply: Supply | None = None
        self._random = random.Random(faults.seed)
        self._held_until_ns = 0
        self._dark_until_ns: int | None = None
        self._reader = PacketReader()
        self._now_ns = self._free_ns = now_ns

    def advance(self, now_ns: int) -> None:
        """Moves the servos up to `now_ns`; of a time longer than 20 ms, in which this process was held up, the end."""
        passed_ns = min(now_ns - self._now_ns, LONGEST_JUMP_NS)
        if passed_ns > 0:
            if self.supply is not None:
                self._feed(self.supply, now_ns)
            for servo in self.servos.values():
                servo.advance(passed_ns / 1e9)
            self._now_ns = now_ns

    def _feed(self, supply: Supply, now_ns: int) -> None:
        """The voltage under the load of all servos; where it breaks down, all of them start anew."""
        if self._dark_until_ns is not None:
            if now_ns < self._dark_until_ns:
                return
            self._dark_until_ns = None
            for servo in self.servos.values():
                servo.silent = False
        drawn_a = sum(IDLE_A + reg.CURRENT_UNIT_A * servo.current for servo in self.servos.values())
        volts = max(0.0, supply.volts - supply.ohms * drawn_a)
        for servo in self.servos.values():
            servo[reg.PRESENT_VOLTAGE] = min(255, round(volts / reg.VOLTAGE_UNIT_V))
            if volts < RESTART_V:
                servo.restart()
                servo.silent = True
        if volts < RESTART_V:
            self._dark_until_ns = now_ns + round(RESTART_S * 1e9)

    def receive(self, data: bytes, now_ns: int) -> list[tuple[int, bytes]]:
        """What the host sent, which is on the line from `now_ns` on; (time, bytes) of what comes back, in order."""
        self.advance(now_ns)
        out: list[tuple[int, bytes]] = []
        if now_ns - self._free_ns > SILENCE_NS:
            self._reader.finish()
        self._free_ns = max(self._free_ns, now_ns) + len(data) * BYTE_NS
        if self.faults.echo:
            out.append((self._free_ns, data))
        for packet in self._reader.feed(self._through_line(data)):
            for answer, delay_ns in self._answers(packet):
                raw = answer.pack()
                self._free_ns += max(LEAST_DELAY_NS, delay_ns) + len(raw) * BYTE_NS
                if self._random.random() < self.faults.late:
                    self._held_until_ns = self._free_ns + self._random.randint(*LATE_NS)
                out.append((max(self._free_ns, self._held_until_ns), self._through_line(raw)))
        return [(due_ns, raw) for due_ns, raw in out if raw]

    def _through_line(self, raw: bytes) -> bytes:
        """The packets in `raw`, some of them damaged or gone."""
        out = b""
        while raw:
            size = raw[3] + 4 if len(raw) > 3 else len(raw)
            packet, raw = raw[:size], raw[size:]
            self.packets += 1
            chance = self._random.random()
            if chance < self.faults.dropped:
                self.damaged += 1
                continue
            if chance < self.faults.dropped + self.faults.corrupted:
                self.damaged += 1
                at = self._random.randrange(len(packet))
                packet = packet[:at] + bytes((packet[at] ^ self._random.randrange(1, 256),)) + packet[at + 1 :]
            out += packet
        return out

    def _answers(self, packet: Packet) -> list[tuple[Packet, int]]:
        data = packet.data
        if packet.code == Instruction.SYNC_READ and len(data) > 2:
            queried = [self.servos[servo] for servo in data[2:] if servo in self.servos]
            return [answer for servo in queried for answer in self._answer(servo, data[0], data[1])]
        if packet.code == Instruction.SYNC_WRITE and len(data) > 2:
            step = data[1] + 1
            for at in range(2, len(data) - step + 1, step):
                if data[at] in self.servos:
                    self._write(self.servos[data[at]], data[0], data[at + 1 : at + step])
            return []
        heard = [one for servo, one in self.servos.items() if packet.servo in (servo, BROADCAST)]
        answers = []
        for servo in heard:
            if packet.code == Instruction.PING:
                answers += self._answer(servo, 0, 0)
            elif packet.code == Instruction.READ and len(data) == 2:
                answers += self._answer(servo, data[0], data[1])
            elif packet.code == Instruction.WRITE and len(data) > 1:
                self._write(servo, data[0], data[1:])
                if servo[reg.STATUS_LEVEL] and packet.servo != BROADCAST:
                    answers += self._answer(servo, 0, 0)
        return answers

    @staticmethod
    def _write(servo: SimulatedServo, address: int, data: bytes) -> None:
        if not servo.silent:
            servo.write(address, data)

    @staticmethod
    def _answer(servo: SimulatedServo, address: int, size: int) -> list[tuple[Packet, int]]:
        if servo.silent or address + size > SIZE:
            return []
        servo.show()
        data = bytes(servo.registers[address : address + size])
        answer = Packet(servo[reg.ID], int(servo.faults), data)
        return [(answer, RETURN_DELAY_UNIT_NS * servo[reg.RETURN_DELAY])]
