"""A simulated STS3215, from its register table: a planner of finite speed and acceleration, and a shaft behind it.

Nothing here was measured on a servo. The registers, their units and what they mean are the table's; the planner is the
simplest that honours registers 41 and 46 (a trapeze that stops at the goal), and the shaft lags behind it by one time
constant. There is no gravity: with the torque off the shaft stays where a hand puts it.
"""

from __future__ import annotations

import math

from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.registers import COUNTS, Fault, Register

STEP_S = 0.001
NO_LOAD_COUNTS_S = 45 / 60 * COUNTS
"""45 rpm at 12 V (Feetech)."""
RESPONSE_S = 0.008
"""Time constant of the shaft behind the plan. Ours: no figure is published."""
FOLLOWED = 1 - math.exp(-STEP_S / RESPONSE_S)
"""Share of what it is behind that the shaft makes up in a step."""
STALL_COUNTS = 60
"""How far the shaft may be behind until the servo pushes with its full torque (ours)."""
STALL_CURRENT = 415
"""In units of 6.5 mA: 2.7 A (Feetech)."""
SIZE = 96
READ_ONLY = (*range(5), *range(56, 71))
AS_DELIVERED = {
    reg.MODEL: reg.MODEL_NUMBER,
    reg.RETURN_DELAY: 250,
    reg.STATUS_LEVEL: 1,
    reg.POSITION_MAX: COUNTS - 1,
    reg.TEMPERATURE_MAX: 70,
    reg.VOLTAGE_MAX: 140,
    reg.VOLTAGE_MIN: 40,
    reg.UNLOADING: int(Fault.TEMPERATURE | Fault.CURRENT | Fault.OVERLOAD),
    reg.PROTECTION_CURRENT: 500,
    reg.PROTECTIVE_TORQUE: 20,
    reg.PROTECTION_TIME: 200,
    reg.OVERLOAD_TORQUE: 80,
    reg.TORQUE_LIMIT: 1000,
    reg.LOCK: 1,
    reg.PRESENT_VOLTAGE: 120,
    reg.PRESENT_TEMPERATURE: 30,
}


class SimulatedServo:
    """One servo. `encoder` is where its shaft is, in counts, before the homing offset; `advance` lets time pass.

    `stalled` is a shaft that something holds; `silent` a servo that does not answer.
    """

    def __init__(self, servo: int, encoder: float) -> None:
        self.registers = bytearray(SIZE)
        self.encoder = encoder
        self.stalled = self.silent = False
        self._plan = encoder
        self._speed = 0.0
        self._rest_s = 0.0
        self._overload_s = 0.0
        for register, value in AS_DELIVERED.items():
            self.registers[register.address : register.address + register.size] = register.pack(value)
        self[reg.ID] = servo
        self.show()

    def __getitem__(self, register: Register) -> int:
        return register.unpack(self.registers[register.address :])

    def __setitem__(self, register: Register, value: int) -> None:
        self.registers[register.address : register.address + register.size] = register.pack(value)
        self._read_settings()

    @property
    def position(self) -> float:
        """What the servo tells, before it is rounded."""
        return self.encoder - self[reg.HOMING_OFFSET]

    @property
    def faults(self) -> Fault:
        """Its own faults, as in the error byte of an answer."""
        found = Fault(0)
        if not self[reg.VOLTAGE_MIN] <= self[reg.PRESENT_VOLTAGE] <= self[reg.VOLTAGE_MAX]:
            found |= Fault.VOLTAGE
        if self[reg.PRESENT_TEMPERATURE] > self[reg.TEMPERATURE_MAX]:
            found |= Fault.TEMPERATURE
        if self._overload_s > reg.PROTECTION_TIME_UNIT_S * self[reg.PROTECTION_TIME]:
            found |= Fault.OVERLOAD
        return found

    def write(self, address: int, data: bytes) -> None:
        """As a packet does; what is read-only stays."""
        held = self.is_on
        for at, byte in enumerate(data, start=address):
            if at < SIZE and at not in READ_ONLY:
                self.registers[at] = byte
        self._read_settings()
        if self.is_on and not held:
            self._plan, self._speed = self.encoder, 0.0
        self.show()

    def hand(self, encoder: float) -> None:
        """A hand moves the shaft; against the torque it cannot."""
        if not self.is_on:
            self.encoder = self._plan = encoder
            self.show()

    def started_anew(self) -> SimulatedServo:
        """The same servo after its supply was gone for a moment: what is not kept over that is as delivered."""
        after = SimulatedServo(self[reg.ID], self.encoder)
        after.registers[: reg.TORQUE_ENABLE.address] = self.registers[: reg.TORQUE_ENABLE.address]
        after.show()
        return after

    @property
    def is_on(self) -> bool:
        return self.registers[reg.TORQUE_ENABLE.address] == 1

    def advance(self, seconds: float) -> None:
        """Lets time pass, in whole steps; the rest is kept for the next call."""
        self._rest_s += seconds
        if self._rest_s < STEP_S - 1e-9:
            return
        if self.is_on and Fault.TEMPERATURE in self.faults & Fault(self[reg.UNLOADING]):
            self[reg.TORQUE_ENABLE] = 0  # it protects itself
        while self._rest_s >= STEP_S - 1e-9:
            self._rest_s -= STEP_S
            self._step()

    def _read_settings(self) -> None:
        """What the steps need of the registers: read once, since a step is made a thousand times a second."""
        goal = min(max(self[reg.GOAL_POSITION], self[reg.POSITION_MIN]), self[reg.POSITION_MAX])
        self._goal = goal + self[reg.HOMING_OFFSET]
        self._most = (self[reg.ACCELERATION] or 254) * reg.ACCELERATION_UNIT
        self._fastest = min(abs(self[reg.GOAL_VELOCITY]) or NO_LOAD_COUNTS_S, NO_LOAD_COUNTS_S)
        self._overload_at = self[reg.OVERLOAD_TORQUE] / 100

    def _step(self) -> None:
        if not self.is_on:
            self._plan, self._speed, self._overload_s = self.encoder, 0.0, 0.0
            return
        self._plan_step()
        if not self.stalled:
            self.encoder += (self._plan - self.encoder) * FOLLOWED
        self._overload_s = self._overload_s + STEP_S if self._push > self._overload_at else 0.0

    def _plan_step(self) -> None:
        left = self._goal - self._plan
        gain = self._most * STEP_S
        fastest = min(self._fastest, math.sqrt(gain * gain / 4 + 2 * self._most * abs(left)) - gain / 2)
        wanted = math.copysign(min(fastest, abs(left) / STEP_S), left)
        self._speed += min(max(wanted - self._speed, -gain), gain)
        self._plan += self._speed * STEP_S

    @property
    def _push(self) -> float:
        """Share of the full torque, from how far the shaft is behind."""
        return min(1.0, abs(self._plan - self.encoder) / STALL_COUNTS) if self.is_on else 0.0

    def show(self) -> None:
        """Brings the registers that can only be read up to date."""
        push = self._push
        sign = 1 if self._plan >= self.encoder else -1
        shown = {
            reg.PRESENT_POSITION: round(self.position) % COUNTS,
            reg.PRESENT_VELOCITY: round(self._speed),
            reg.PRESENT_LOAD: sign * round(1000 * push),
            reg.PRESENT_CURRENT: round(STALL_CURRENT * push),
            reg.STATUS: int(self.faults),
            reg.MOVING: int(abs(self._speed) > 1),
        }
        for register, value in shown.items():
            self.registers[register.address : register.address + register.size] = register.pack(value)
