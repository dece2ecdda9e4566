"""What drives of arms on a bus share: the cycle, silence, faults that are told until the core has heard of them.

A cycle is a few of the core's periods. It takes what the arm has told, lets the core run, and tells the arm what to do.
What is lost on the line is counted and bridged; a line that is gone is looked for again; nothing on it ends the loop.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Generic, Protocol, TypeVar

from firmware_bridge.adapters.base import DriveError, Measurement
from firmware_bridge.errors import BridgeError, LinkLost
from firmware_bridge.printing import harmless

BRIDGED_PERIODS = 50
"""Ours: at an operating speed of 2 rad/s an arm is then 0.1 rad behind, within what the core lets a joint lag."""
OLDEST_S = 0.05
"""Ours: what was told longer ago cannot be relied on. Ten cycles, and half of the timeout of motors that have one."""
RECONNECT_S = 1.0
SERVE_S = 0.0005
MS_NS = 1_000_000


class Bus(Protocol):
    """What an arm is connected by."""

    def close(self) -> None:
        """Leaves it."""


B = TypeVar("B", bound=Bus)


class BusDrive(ABC, Generic[B]):
    """An arm on the bus that `open_bus` opens, again after it was lost.

    `names` are those who tell something on it, in words, by their number. A fault of the arm is told to the core until
    it has taken the drive away, and again when it wants it on; it stays until `clear`. Silence is told as long as it
    lasts. `sleep(seconds)` waits for the next cycle. The class that derives from it connects at the end of its
    `__init__`.
    """

    CYCLE_PERIODS: ClassVar[int]
    WHEN_LOST: ClassVar[str]
    """What the arm does by itself once nobody speaks to it."""
    WHEN_LEFT: ClassVar[str]
    """The same, and what a person has to do where it cannot be let go."""
    WHEN_BACK: ClassVar[str]

    def __init__(
        self,
        open_bus: Callable[[], B],
        names: Mapping[int, str],
        notify: Callable[[str], None],
        clock_ns: Callable[[], int],
        sleep: Callable[[float], None],
    ) -> None:
        self._open_bus, self._names = open_bus, dict(names)
        self._notify, self._clock_ns, self._sleep = harmless(notify), clock_ns, sleep
        self._bus: B | None = None
        self._fault, self._untold = "", False
        self._wanted, self._wanted_ns = False, clock_ns()
        self._patience_s = dict.fromkeys(self._names, OLDEST_S)
        self._heard_ns: dict[int, int] = {}
        self._silent = False
        self._asked = dict.fromkeys(self._names, 0)
        self._answered = dict.fromkeys(self._names, 0)
        self._implausible = self._cycles = 0
        self._retry_ns = self._due_ns = 0
        self._reported_ns: int | None = None
        self._periods, self._takes = 1, False
        self._serve: Callable[[], None] = lambda: None

    # What the core's loop calls --------------------------------------------------------------------------------------

    @property
    @abstractmethod
    def position_rad(self) -> tuple[float, ...]:
        """As last measured."""

    @property
    def fault(self) -> str:
        """What keeps the arm from moving, in words; empty where nothing does."""
        return self._fault

    def while_waiting(self, serve: Callable[[], None]) -> None:
        self._serve = serve

    def measure(self) -> Measurement:
        self.collect()
        self.begin(self.wait_for_cycle())
        return self.finish()

    def command(self, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float], enable: bool) -> None:
        if not enable:
            self._untold = False  # the core has heard of it: it took the drive away
        elif self._fault and not self._wanted:
            self._untold, enable = True, False
        if enable and not all(map(math.isfinite, (*set_point_rad, *velocity_rad_s))):
            self._break("a set-point is not finite; the drive goes off")
            enable = False
        now_ns = self._clock_ns()
        if enable != self._wanted:
            self._wanted, self._wanted_ns = enable, now_ns
        self._switch(now_ns)
        self._on_bus(lambda bus: self._tell(bus, set_point_rad, velocity_rad_s))

    def clear(self) -> None:
        self._fault, self._untold = "", False

    def statistics(self) -> dict[str, float]:
        return {
            "success_rate_least": min(
                1.0, *(self._answered[one] / max(1, asked) for one, asked in self._asked.items())
            ),
            "cycles": self._cycles,
            "answers_missing": max(0, sum(self._asked.values()) - sum(self._answered.values())),
            "positions_implausible": self._implausible,
        }

    def close(self) -> None:
        """Takes the drive away: an arm without brakes sinks."""
        bus, self._bus = self._bus, None
        if bus is None:
            return
        try:
            self._let_go(bus)
        except (LinkLost, DriveError) as lost:
            self._notify(f"{lost}; {self.WHEN_LEFT}")
        bus.close()

    # A cycle, in the parts in which several arms share it (`joined.py`) --------------------------------------------

    def collect(self) -> None:
        """Takes what has come since the last cycle."""
        self._on_bus(self._before_waiting)

    def wait_for_cycle(self) -> int:
        """Waits until a cycle is due; returns when it was due. One that is more than a cycle late is left out."""
        period_ns = self.CYCLE_PERIODS * MS_NS
        if self._reported_ns is None:
            self._due_ns = self._clock_ns()
        self._due_ns += max(0, self._clock_ns() - self._due_ns) // period_ns * period_ns
        while (left_ns := self._due_ns - self._clock_ns()) > 0:
            self._serve()
            self._sleep(min(left_ns / 1e9, SERVE_S))
        due_ns = self._due_ns
        self._due_ns += period_ns
        return due_ns

    def begin(self, stamp_ns: int) -> None:
        """Begins the cycle that was due then: asks, and waits for nothing; or looks for a bus that was lost."""
        if self._reported_ns is None:  # the loop begins; until now nobody has listened
            self._heard_ns = dict.fromkeys(self._names, stamp_ns)
        self._periods = 1 if self._reported_ns is None else (stamp_ns - self._reported_ns) // MS_NS
        self._reported_ns = stamp_ns
        self._cycles += 1
        self._takes = self._bus is not None
        if self._bus is None:
            self._try_again()
        else:
            self._on_bus(self._query)

    def finish(self) -> Measurement:
        """What the arm tells in the cycle that has begun."""
        if self._takes:
            self._on_bus(self._take)
        now_ns, stamp_ns = self._clock_ns(), self._reported_ns or 0
        ok = self._all_are_heard(now_ns) and not self._untold
        return Measurement(self.position_rad, ok, self._is_on, self._periods, (now_ns - stamp_ns) // 1000)

    # What an arm is asked and told -----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def _is_on(self) -> bool:
        """Measured: all of it once it is to be on, and any of it until the last is off."""

    @abstractmethod
    def _prepare(self, bus: B, may_hold: bool) -> None:
        """Looks at the arm and sets up what the loop relies on; only where it `may_hold`, it may be on. Raises
        `BridgeError` where it cannot be driven."""

    def _before_waiting(self, bus: B) -> None:
        """Takes the answers that come while the next cycle is waited for."""

    def _query(self, bus: B) -> None:
        """Asks for what is taken in this cycle, of an arm that does not tell it by itself."""

    @abstractmethod
    def _take(self, bus: B) -> None:
        """Takes what the arm tells in this cycle."""

    def _switch(self, now_ns: int) -> None:
        """Follows how the drive comes on and goes off as `_wanted`, also where there is no bus."""

    @abstractmethod
    def _tell(self, bus: B, set_point_rad: Sequence[float], velocity_rad_s: Sequence[float]) -> None:
        """Tells the arm what to do in this cycle: `_wanted` says whether to follow. Set-points are finite then."""

    @abstractmethod
    def _let_go(self, bus: B) -> None:
        """Takes the drive away at the end. Raises `LinkLost` or `DriveError`."""

    # Inside ----------------------------------------------------------------------------------------------------------

    def _connect(self, may_hold: bool) -> None:
        bus = self._open_bus()
        try:
            self._prepare(bus, may_hold)
        except BridgeError:
            bus.close()
            raise
        self._bus, self._wanted_ns = bus, self._clock_ns()

    def _is_plausible(self, one: int, moved: float, fastest: float, jitter: float, now_ns: int) -> bool:
        """Whether `one` can have moved so far since it was heard; then it counts as heard now."""
        if moved > fastest * (now_ns - self._heard_ns[one]) / 1e9 + jitter:
            self._implausible += 1
            return False
        self._heard_ns[one] = now_ns
        return True

    def _all_are_heard(self, now_ns: int) -> bool:
        """Whether what is known of the arm is young enough. No fault that stays: it ends when they are heard."""
        quietest = min(self._heard_ns, key=lambda one: self._heard_ns[one] + round(1e9 * self._patience_s[one]))
        oldest_ns = now_ns - self._heard_ns[quietest]
        silent = self._bus is None or oldest_ns > self._patience_s[quietest] * 1e9
        if silent and not self._silent:
            self._notify(f"{self._names[quietest]} has been silent for {oldest_ns / 1e6:.0f} ms; check the cables")
        self._silent = silent
        return not silent

    def _break(self, why: str) -> None:
        if not self._fault:
            self._notify(why)
            self._fault, self._untold = why, True

    def _on_bus(self, act: Callable[[B], None]) -> None:
        """Does something on the bus, where there is one; one that breaks is looked for again."""
        if self._bus is None:
            return
        try:
            act(self._bus)
        except LinkLost as lost:
            if self._bus is not None:
                self._bus.close()
            self._bus = None
            self._retry_ns = self._clock_ns() + round(RECONNECT_S * 1e9)
            self._silent = True
            self._notify(f"{lost}; {self.WHEN_LOST}")

    def _try_again(self) -> None:
        if self._clock_ns() < self._retry_ns:
            return
        self._retry_ns = self._clock_ns() + round(RECONNECT_S * 1e9)
        try:
            self._connect(may_hold=True)
            self._notify(self.WHEN_BACK)
        except BridgeError:
            self._bus = None
