"""How the servos are: temperature, voltage, load and current, judged before a servo's own protection lets go.

A servo that protects itself takes its torque away, and the arm falls. Each limit here lies in front of the servo's own,
so that the core can bring the arm to rest first.
"""

from __future__ import annotations

from dataclasses import dataclass

from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.registers import Fault

HEALTH_AT = reg.TORQUE_ENABLE.address
HEALTH_SIZE = reg.PRESENT_CURRENT.address + reg.PRESENT_CURRENT.size - HEALTH_AT
HOTTEST_C = 65
"""Ours: 5 below where the servo lets go (register 13, 70 as delivered)."""
VOLTAGE_MARGIN_V = 0.2
"""Ours: inside the servo's own limits (registers 14 and 15), twice the resolution."""
MOST_LOAD = 0.8
"""Of the full duty: the servo's own overload threshold as delivered (register 36)."""
MOST_CURRENT_A = 2.5
"""Ours: below the 2.7 A of a stalled 12 V servo (Feetech), and the 3.2 A of register 28 as delivered."""
LONGEST_STRAIN_S = 1.0
"""Ours: half of the 2 s after which the servo lets go by itself (registers 35 and 38 as delivered)."""
HARMLESS_WHEN_GRIPPING = Fault.OVERLOAD
"""A gripper that holds something is blocked, and its servo then goes down to a smaller torque: that is its purpose."""
TORQUE_MARGIN = 0.05
"""Of the stall torque: how far a load may be told above its limit (ours)."""


@dataclass(frozen=True)
class Health:
    """One servo at one time. `load` is a share of the full duty, signed like the torque; `torque_limit` what it may be
    at most."""

    load: float
    voltage_v: float
    temperature_c: int
    current_a: float
    torque_limit: float = 1.0

    @staticmethod
    def unpack(data: bytes) -> Health:
        """From the registers 40 to 70."""
        return Health(
            load=reg.LOAD_UNIT * reg.within(HEALTH_AT, reg.PRESENT_LOAD, data),
            voltage_v=reg.VOLTAGE_UNIT_V * reg.within(HEALTH_AT, reg.PRESENT_VOLTAGE, data),
            temperature_c=reg.within(HEALTH_AT, reg.PRESENT_TEMPERATURE, data),
            current_a=reg.CURRENT_UNIT_A * reg.within(HEALTH_AT, reg.PRESENT_CURRENT, data),
            torque_limit=reg.LOAD_UNIT * reg.within(HEALTH_AT, reg.TORQUE_LIMIT, data),
        )


@dataclass(frozen=True)
class GripLimits:
    """Of a jaw: the share of the stall torque that was written as its limit, and the current at which it lets go."""

    torque: float
    current_a: float


@dataclass(frozen=True)
class VoltageRange:
    """Between what a servo is made for, in volts."""

    least_v: float
    most_v: float

    def fault(self, voltage_v: float) -> str:
        """What is wrong with a voltage, in words; empty where nothing is."""
        if voltage_v < self.least_v + VOLTAGE_MARGIN_V:
            return f"gets {voltage_v:.1f} V and needs more than {self.least_v:.1f} V; check the supply and its cable"
        if voltage_v > self.most_v - VOLTAGE_MARGIN_V:
            return f"gets {voltage_v:.1f} V and bears less than {self.most_v:.1f} V; use the supply that it is made for"
        return ""


class HealthWatch:
    """Judges one servo by what it tells from time to time. A jaw has limits of its own, `grip`: it may be strained for
    as long as it stays within them."""

    def __init__(self, name: str, voltage: VoltageRange, grip: GripLimits | None = None) -> None:
        self.name = name
        self.last: Health | None = None
        self.hottest_c = 0
        self.lowest_v = float("inf")
        self._voltage = voltage
        self._grip = grip
        self.overloads = 0
        self._overloaded = False
        self._strained_since_ns: int | None = None

    def judge(self, health: Health, now_ns: int) -> str:
        """The fault in words, empty where there is none."""
        self.last = health
        self.hottest_c = max(self.hottest_c, health.temperature_c)
        self.lowest_v = min(self.lowest_v, health.voltage_v)
        if health.temperature_c >= HOTTEST_C:
            return f"{self.name} is at {health.temperature_c} degrees (limit {HOTTEST_C}); let it cool down"
        voltage = self._voltage.fault(health.voltage_v)
        if voltage:
            return f"{self.name} {voltage}"
        if self._grip is not None and abs(health.torque_limit - self._grip.torque) > 1e-6:
            limits = f"{health.torque_limit:.0%} of its torque, and was set to {self._grip.torque:.0%}"
            return f"{self.name} may use {limits}: another program, or it has started anew; check its supply"
        most_load, most_a = MOST_LOAD, MOST_CURRENT_A
        if self._grip is not None:
            most_load, most_a = self._grip.torque + TORQUE_MARGIN, self._grip.current_a
        strained = abs(health.load) > most_load or abs(health.current_a) > most_a
        if not strained:
            self._strained_since_ns = None
        elif self._strained_since_ns is None:
            self._strained_since_ns = now_ns
        elif now_ns - self._strained_since_ns > LONGEST_STRAIN_S * 1e9:
            strain = f"{abs(health.load):.0%} load, {abs(health.current_a):.1f} A"
            return f"{self.name} has been strained for {LONGEST_STRAIN_S:g} s ({strain}); take what blocks it away"
        return ""

    def error_byte(self, error: int) -> str:
        """The fault that a servo tells in the error byte of an answer, in words."""
        told = Fault(error & 0x2F)
        self.overloads += Fault.OVERLOAD in told and not self._overloaded
        self._overloaded = Fault.OVERLOAD in told
        fault = told & ~(HARMLESS_WHEN_GRIPPING if self._grip is not None else Fault(0))
        return f"{self.name} reports a fault of its own: {fault.describe()}" if fault else ""
