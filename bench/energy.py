"""What a measurement took out of the plug, where the machine tells.

Intel's and AMD's RAPL counts energy of the processor package; a Jetson's INA3221 says voltage and current of the whole
module, which is what `tegrastats` prints. Both include whatever else the machine does meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

PERIOD_S = 0.05
RAILS = ("VDD_IN", "POM_5V_IN")
"""Of the whole module, by the names of the Orin's and the older boards' sensors."""


class Meter(Protocol):
    """Counts the energy between two calls."""

    source: str

    def begin(self) -> None:
        """Starts counting."""

    def joules(self) -> float:
        """Ends counting; the energy since `begin`."""


class RaplMeter:
    """The packages' own counters, which wrap."""

    def __init__(self, packages: list[Path]) -> None:
        self._packages = packages
        self._spans = [int((path / "max_energy_range_uj").read_text()) for path in packages]
        self._before: list[int] = []
        self.source = f"RAPL, {len(packages)} processor package(s), all that runs on them"

    def begin(self) -> None:
        self._before = self._now()

    def joules(self) -> float:
        spent = ((after - before) % (span + 1) for after, before, span in zip(self._now(), self._before, self._spans))
        return sum(spent) / 1e6

    def _now(self) -> list[int]:
        return [int((path / "energy_uj").read_text()) for path in self._packages]


class PowerSum:
    """Energy under a power that was looked at now and then, by the trapezoidal rule."""

    def __init__(self) -> None:
        self.joules = 0.0
        self._last: tuple[float, float] | None = None

    def add(self, at_s: float, watts: float) -> None:
        """Takes one look."""
        if self._last is not None:
            before_s, before_w = self._last
            self.joules += (at_s - before_s) * (watts + before_w) / 2
        self._last = at_s, watts


class SensorMeter:
    """A power sensor, read twenty times a second by a thread and added up."""

    def __init__(self, folder: Path, channel: int, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._volts, self._amperes = folder / f"in{channel}_input", folder / f"curr{channel}_input"
        self._clock_s = clock_s
        self._done = threading.Event()
        self._thread: threading.Thread | None = None
        self._sum = PowerSum()
        self.source = "INA3221, the whole module, as tegrastats shows it"

    def watts(self) -> float:
        """Now: mV x mA."""
        return int(self._volts.read_text()) * int(self._amperes.read_text()) / 1e6

    def begin(self) -> None:
        self._done.clear()
        self._sum = PowerSum()
        self._sum.add(self._clock_s(), self.watts())
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(PERIOD_S):
            self._sum.add(self._clock_s(), self.watts())

    def joules(self) -> float:
        assert self._thread is not None
        self._done.set()
        self._thread.join()
        self._sum.add(self._clock_s(), self.watts())
        return self._sum.joules


def find_meter(root: Path = Path("/sys")) -> tuple[Meter | None, str]:
    """What can count energy here, and what it counts; or None, and why not."""
    refused = False
    packages = []
    for path in sorted((root / "class/powercap").glob("intel-rapl:[0-9]*")):
        if ":" in path.name.removeprefix("intel-rapl:"):
            continue  # a part of a package, which the package counts already
        try:
            int((path / "energy_uj").read_text())
            packages.append(path)
        except (OSError, ValueError):
            refused = True
    if packages:
        rapl = RaplMeter(packages)
        return rapl, rapl.source
    for folder in sorted((root / "class/hwmon").glob("hwmon*")):
        for label in sorted(folder.glob("in*_label")):
            if label.read_text().strip() in RAILS:
                sensor = SensorMeter(folder, int(label.name.removeprefix("in").removesuffix("_label")))
                return sensor, sensor.source
    if refused:
        return None, "RAPL is there and may not be read; run as root"
    return None, "this machine has neither RAPL (/sys/class/powercap) nor an INA3221 (/sys/class/hwmon)"
