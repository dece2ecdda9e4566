"""A simulated STS3215, from its register table: a planner of finite speed and acceleration, and a shaft behind it that
gives way, is loaded, meets its stops, and is protected as the table says.

Nothing here was measured on a servo. What registers do is Feetech's memory table of the STS series: the torque limit
(48) is taken from register 16 when the supply comes on; a load above register 36 for the time of register 35 is an
overload, after which the torque is that of register 34; a current above register 28 for the time of register 38, and a
temperature above register 13, take the torque away; each only where register 19 enables it. That a new goal releases an
overload, if it is a degree away from the one at which it began, is how users describe the servos. The rest is ours: the
planner is the simplest that honours registers 41 and 46 (a trapeze that stops at the goal), and the shaft follows it
like a damped spring, which a load at the shaft holds away from it.
"""

from __future__ import annotations

import math
import random

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
"""How far the shaft may be behind until the servo pushes with its full torque: a load of 1.5 N m keeps it 30 counts
away (ours; TheRobotStudio/SO-ARM100 issue 134 has 20 to 30)."""
STALL_CURRENT = 415
"""In units of 6.5 mA: 2.7 A (Feetech)."""
FRICTION = 0.03
"""Of the stall torque: a smaller load does not turn the gears of a servo without torque (ours)."""
SINKS_COUNTS_S = 4000
"""How fast a load of the whole stall torque would turn a servo without torque (ours)."""
RELEASED_COUNTS = 11
"""A goal that is a degree from the one of an overload ends it."""
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
    reg.MAX_TORQUE: 1000,
    reg.PHASE: 12,
    reg.UNLOADING: int(Fault.TEMPERATURE | Fault.CURRENT | Fault.OVERLOAD),
    reg.P_GAIN: 32,
    reg.D_GAIN: 32,
    reg.PROTECTION_CURRENT: 500,
    reg.PROTECTIVE_TORQUE: 20,
    reg.PROTECTION_TIME: 200,
    reg.OVERLOAD_TORQUE: 80,
    reg.OVERCURRENT_TIME: 200,
    reg.TORQUE_LIMIT: 1000,
    reg.LOCK: 1,
    reg.PRESENT_VOLTAGE: 120,
    reg.PRESENT_TEMPERATURE: 30,
}


class SimulatedServo:
    """One servo. `encoder` is where its shaft is, in counts, before the homing offset; `advance` lets time pass.

    load       at the shaft, as a share of the stall torque, positive towards higher counts: the arm's weight
    stops      between which the shaft turns, in counts of the encoder; something that is held is a stop as well
    noise      by how many counts at most what it tells differs from where the shaft is
    stalled    a shaft that something holds where it is
    silent     a servo that does not answer
    """

    def __init__(self, servo: int, encoder: float) -> None:
        self.registers = bytearray(SIZE)
        self.encoder = encoder
        self.load, self.stops, self.noise = 0.0, (-math.inf, math.inf), 0
        self.stalled = self.silent = False
        self._noise = random.Random(servo)
        self._plan = encoder
        self._turn = 0.0
        self._speed = self._push = 0.0
        self._rest_s = 0.0
        self._overload_s = self._overcurrent_s = 0.0
        self._overloaded_at: int | None = None
        self._latched = Fault(0)
        for register, value in AS_DELIVERED.items():
            self.registers[register.address : register.address + register.size] = register.pack(value)
        self._saved = self.registers[: reg.SAVED]
        self[reg.ID] = servo
        self.show()

    def __getitem__(self, register: Register) -> int:
        return register.unpack(self.registers[register.address :])

    def __setitem__(self, register: Register, value: int) -> None:
        """Sets a register, as the servo was delivered or found: for good."""
        at, data = register.address, register.pack(value)
        self.registers[at : at + register.size] = data
        if at < reg.SAVED:
            self._saved[at : at + register.size] = data
        self._read_settings()

    @property
    def position(self) -> float:
        """Where the shaft is in the counts that the servo tells, before they are rounded, and beyond an end of the turn
        where it is."""
        return self.encoder - self[reg.HOMING_OFFSET] - self._turn

    @property
    def torque_nm(self) -> float:
        """With which the servo turns its shaft now, positive towards higher counts."""
        return reg.STALL_NM * self._push

    @property
    def current(self) -> float:
        """What it draws now, in units of 6.5 mA."""
        return STALL_CURRENT * abs(self._push)

    @property
    def faults(self) -> Fault:
        """Its own faults, as in the error byte of an answer."""
        found = self._latched
        if not self[reg.VOLTAGE_MIN] <= self[reg.PRESENT_VOLTAGE] <= self[reg.VOLTAGE_MAX]:
            found |= Fault.VOLTAGE
        if self[reg.PRESENT_TEMPERATURE] > self[reg.TEMPERATURE_MAX]:
            found |= Fault.TEMPERATURE
        return found

    def write(self, address: int, data: bytes) -> None:
        """As a packet does; what is read-only stays."""
        held = self.is_on
        for at, byte in enumerate(data, start=address):
            if at < SIZE and at not in READ_ONLY:
                self.registers[at] = byte
        if address < reg.SAVED and not self[reg.LOCK]:
            self._saved = self.registers[: reg.SAVED]
        self._read_settings()
        if self.is_on and not held:
            self._plan, self._speed = self.encoder, 0.0
            self._release(Fault.CURRENT | Fault.OVERLOAD)
        self.show()

    def hand(self, encoder: float) -> None:
        """A hand moves the shaft; against the torque it cannot."""
        if not self.is_on:
            self.encoder = self._plan = encoder
            self._read_settings()
            self.show()

    def started_anew(self) -> SimulatedServo:
        """The same servo after its supply was gone for a moment: what is not kept over that is as delivered."""
        after = SimulatedServo(self[reg.ID], self.encoder)
        after.load, after.stops, after.noise = self.load, self.stops, self.noise
        after.restart(self._saved)
        return after

    def restart(self, saved: bytearray | None = None) -> None:
        """Its supply was gone for a moment: the torque is off, the goal 0, and what was not saved is as before."""
        self._saved = self._saved if saved is None else bytearray(saved)
        voltage = self[reg.PRESENT_VOLTAGE]
        for register, value in AS_DELIVERED.items():
            if register.address >= reg.SAVED:
                self.registers[register.address : register.address + register.size] = register.pack(value)
        for register in (reg.TORQUE_ENABLE, reg.ACCELERATION, reg.GOAL_POSITION, reg.GOAL_VELOCITY):
            self.registers[register.address : register.address + register.size] = register.pack(0)
        self.registers[: reg.SAVED] = self._saved
        self[reg.TORQUE_LIMIT] = self[reg.MAX_TORQUE]
        self[reg.PRESENT_VOLTAGE] = voltage
        self._release(Fault.CURRENT | Fault.OVERLOAD)
        self._push = self._speed = 0.0
        self.show()

    @property
    def is_on(self) -> bool:
        return self.registers[reg.TORQUE_ENABLE.address] == 1

    def advance(self, seconds: float) -> None:
        """Lets time pass, in whole steps; the rest is kept for the next call."""
        self._rest_s += seconds
        if self._rest_s < STEP_S - 1e-9:
            return
        if self.is_on and (Fault.TEMPERATURE | Fault.VOLTAGE) & self.faults & Fault(self[reg.UNLOADING]):
            self._let_go()
        while self._rest_s >= STEP_S - 1e-9:
            self._rest_s -= STEP_S
            self._step()

    def _let_go(self) -> None:
        """It protects itself."""
        self.registers[reg.TORQUE_ENABLE.address] = 0

    def _release(self, faults: Fault) -> None:
        self._latched &= ~faults
        if Fault.OVERLOAD in faults:
            self._overload_s, self._overloaded_at = 0.0, None
        if Fault.CURRENT in faults:
            self._overcurrent_s = 0.0
        self._read_settings()

    def _read_settings(self) -> None:
        """What the steps need of the registers: read once, since a step is made a thousand times a second."""
        goal = min(max(self[reg.GOAL_POSITION], self[reg.POSITION_MIN]), self[reg.POSITION_MAX])
        if not self.is_on:  # within one turn, wherever the shaft has been turned to; over several, as it counts
            whole = self[reg.PHASE] & reg.WHOLE_ANGLE
            self._turn = 0.0 if whole else COUNTS * ((self.encoder - self[reg.HOMING_OFFSET]) // COUNTS)
        if self._overloaded_at is not None and abs(goal - self._overloaded_at) >= RELEASED_COUNTS:
            self._latched &= ~Fault.OVERLOAD
            self._overload_s, self._overloaded_at = 0.0, None
        self._goal = goal + self[reg.HOMING_OFFSET] + self._turn
        self._most = (self[reg.ACCELERATION] or 254) * reg.ACCELERATION_UNIT
        self._fastest = min(abs(self[reg.GOAL_VELOCITY]) or NO_LOAD_COUNTS_S, NO_LOAD_COUNTS_S)
        own = Fault(self[reg.UNLOADING] & 0x2F)
        self._limit = self[reg.TORQUE_LIMIT] * reg.LOAD_UNIT
        if self._overloaded_at is not None:
            self._limit = min(self._limit, self[reg.PROTECTIVE_TORQUE] / 100)
        self._overload_at = self[reg.OVERLOAD_TORQUE] / 100 if Fault.OVERLOAD in own else math.inf
        self._overload_after_s = reg.PROTECTION_TIME_UNIT_S * self[reg.PROTECTION_TIME]
        self._current_at = self[reg.PROTECTION_CURRENT] if Fault.CURRENT in own else math.inf
        self._current_after_s = reg.PROTECTION_TIME_UNIT_S * self[reg.OVERCURRENT_TIME]

    def _step(self) -> None:
        if not self.is_on:
            self._sink()
            return
        self._plan_step()
        behind = self._plan - self.encoder
        if self.stalled:
            pass
        elif abs(behind) <= self._limit * STALL_COUNTS:
            self.encoder += (behind + self.load * STALL_COUNTS) * FOLLOWED
        else:
            push = math.copysign(self._limit, behind) + self.load
            step = min(abs(push) * STALL_COUNTS * FOLLOWED, NO_LOAD_COUNTS_S * STEP_S)
            self.encoder += math.copysign(step, push)
        self._meet_stops()
        self._push = min(max((self._plan - self.encoder) / STALL_COUNTS, -self._limit), self._limit)
        self._protect()

    def _sink(self) -> None:
        """Without torque the shaft turns with its load, until it rests on a stop."""
        self._speed = self._push = self._overload_s = self._overcurrent_s = 0.0
        if not self.stalled and abs(self.load) > FRICTION:
            pull = self.load - math.copysign(FRICTION, self.load)
            self.encoder += pull * SINKS_COUNTS_S * STEP_S
            self._meet_stops()
        self._plan = self.encoder

    def _meet_stops(self) -> None:
        low, high = self.stops
        self.encoder = min(max(self.encoder, low), high)

    def _protect(self) -> None:
        """Overload and current, each after its time."""
        self._overload_s = self._overload_s + STEP_S if abs(self._push) > self._overload_at else 0.0
        self._overcurrent_s = self._overcurrent_s + STEP_S if self.current > self._current_at else 0.0
        if self._overload_s > self._overload_after_s and self._overloaded_at is None:
            self._overloaded_at = self[reg.GOAL_POSITION]
            self._latched |= Fault.OVERLOAD
            self._read_settings()
        if self._overcurrent_s > self._current_after_s:
            self._latched |= Fault.CURRENT
            self._let_go()

    def _plan_step(self) -> None:
        left = self._goal - self._plan
        gain = self._most * STEP_S
        fastest = min(self._fastest, math.sqrt(gain * gain / 4 + 2 * self._most * abs(left)) - gain / 2)
        wanted = math.copysign(min(fastest, abs(left) / STEP_S), left)
        self._speed += min(max(wanted - self._speed, -gain), gain)
        self._plan += self._speed * STEP_S

    def show(self) -> None:
        """Brings the registers that can only be read up to date."""
        noise = self._noise.randint(-self.noise, self.noise) if self.noise else 0
        told = round(self.position) + noise
        shown = {
            reg.PRESENT_POSITION: told if self[reg.PHASE] & reg.WHOLE_ANGLE else told % COUNTS,
            reg.PRESENT_VELOCITY: round(self._speed),
            reg.PRESENT_LOAD: round(1000 * self._push),
            reg.PRESENT_CURRENT: round(self.current),
            reg.STATUS: int(self.faults),
            reg.MOVING: int(abs(self._speed) > 1),
        }
        for register, value in shown.items():
            self.registers[register.address : register.address + register.size] = register.pack(value)
