"""Each check of the machine and of rights, on trees of /sys and /proc made here: sound, and not."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from edge.doctor import machine, rights
from edge.doctor.check import Check, Status, document, line, passed
from firmware_bridge.errors import BuildError


def tree(root: Path, **files: str) -> Path:
    """Writes files whose names have `__` for `/`."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_python() -> None:
    assert machine.check_python((3, 10, 0)).status is Status.OK
    old = machine.check_python((3, 9, 18))
    assert (old.status, old.found) == (Status.FAIL, "3.9.18") and "3.10" in old.fix


def test_packages() -> None:
    complete = machine.check_packages(lambda name: "1.0")
    assert complete.status is Status.OK and "without" not in complete.found
    plain = machine.check_packages(lambda name: "1.0" if name in machine.REQUIRED else None)
    assert plain.status is Status.OK and plain.found.endswith("without camera, can, sim, plot")
    broken = machine.check_packages(lambda name: None if name == "onnxruntime" else "1.0")
    assert (broken.status, broken.found) == (Status.FAIL, "onnxruntime missing")


def test_core(monkeypatch: pytest.MonkeyPatch) -> None:
    core = machine.check_core()
    assert core.status is Status.OK and re.fullmatch(r"firmware [0-9a-f]{8}, .+, by .+", core.found)

    def refuse() -> None:
        raise BuildError("neither prebuilt nor a compiler; sudo apt-get install gcc")

    monkeypatch.setattr(machine, "build", refuse)
    missing = machine.check_core()
    assert (missing.status, missing.found, missing.fix) == (
        Status.FAIL,
        "neither prebuilt nor a compiler",
        "sudo apt-get install gcc",
    )


def test_cores(tmp_path: Path) -> None:
    tree(tmp_path, sys__devices__system__cpu__isolated="2-3\n")
    check = machine.check_cores(tmp_path, 4)
    assert (check.status, check.found) == (Status.OK, "4 cores usable, isolated: 2-3")
    alone = machine.check_cores(tmp_path / "nothing", 1)
    assert (
        alone.status is Status.WARN and alone.found == "1 core usable, isolated: none" and "share a core" in alone.fix
    )


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({"sys__kernel__realtime": "1\n", "proc__version": "Linux version 6.6.1-rt (x) #1"}, Status.OK),
        ({"proc__version": "Linux version 6.12.0 (gcc) #1 SMP PREEMPT_RT Mon"}, Status.OK),
        ({"proc__version": "Linux version 5.15.148-tegra (x) #1 SMP PREEMPT Mon"}, Status.WARN),
        ({"sys__kernel__realtime": "0", "proc__version": "Linux version 6.1.0 (x)"}, Status.WARN),
        ({}, Status.WARN),
    ],
)
def test_kernel(tmp_path: Path, files: dict[str, str], status: Status) -> None:
    check = machine.check_kernel(tree(tmp_path, **files))
    assert check.status is status
    if "proc__version" in files:
        assert check.found.startswith(files["proc__version"].split()[2] + ", ")


CPU = "sys__devices__system__cpu__cpu{}__cpufreq__{}"


def clocks(*governors: str) -> dict[str, str]:
    files = {}
    for core, governor in enumerate(governors):
        files[CPU.format(core, "scaling_governor")] = governor + "\n"
        files[CPU.format(core, "scaling_cur_freq")] = "1190400\n"
        files[CPU.format(core, "cpuinfo_max_freq")] = "2201600\n"
    return files


def test_governor(tmp_path: Path) -> None:
    assert machine.check_governor(tmp_path).status is Status.SKIPPED
    good = machine.check_governor(tree(tmp_path / "good", **clocks("performance", "performance")))
    assert (good.status, good.found) == (Status.OK, "performance; 1190 of 2201 MHz")
    mixed = machine.check_governor(tree(tmp_path / "mixed", **clocks("performance", "schedutil")))
    assert mixed.status is Status.WARN and mixed.fix == "sudo cpupower frequency-set -g performance"
    jetson = tree(tmp_path / "orin", **clocks("schedutil"), **{"proc__device-tree__model": "NVIDIA Jetson AGX Orin\0"})
    assert machine.check_governor(jetson).fix == "sudo nvpmodel -m 0 && sudo jetson_clocks"


def test_memory(tmp_path: Path) -> None:
    tree(tmp_path, proc__meminfo="MemTotal:  8000000 kB\nMemAvailable:    2048000 kB\n")
    assert machine.check_memory(tmp_path, None).status is Status.OK
    assert machine.check_memory(tmp_path, 500 << 20).status is Status.OK
    full = machine.check_memory(tmp_path, 1000 << 20)
    assert full.status is Status.FAIL and full.figures["needed_mb"] > full.figures["free_mb"] == 2000
    assert machine.check_memory(tmp_path / "nothing", 1).status is Status.SKIPPED


def test_shared_memory() -> None:
    assert machine.check_shared_memory().status is Status.OK

    def forbidden(name: str) -> int:
        raise PermissionError(1, "Operation not permitted")

    check = machine.check_shared_memory(forbidden)
    assert check.status is Status.FAIL and "Operation not permitted" in check.found and "seccomp" in check.fix


def test_rights() -> None:
    granted = rights.Rights(None, None, 80, -1)
    refused = rights.Rights("Operation not permitted", "Cannot allocate memory", 0, 8 << 20)
    assert rights.check_priority(granted).status is rights.check_locked_memory(granted).status is Status.OK
    priority, locked = rights.check_priority(refused), rights.check_locked_memory(refused)
    assert priority.status is locked.status is Status.WARN
    assert "refused (Operation not permitted)" in priority.found and "rtprio 80" in priority.fix
    assert "limit 8192 kB" in locked.found and "memlock unlimited" in locked.fix
    assert rights.check_priority(None).status is rights.check_locked_memory(None).status is Status.SKIPPED


def test_the_probe_really_asks_and_leaves_this_process_as_it_was() -> None:
    before = os.sched_getscheduler(0)
    found = rights.probe()
    assert found is not None
    assert os.sched_getscheduler(0) == before
    assert all(refusal is None or refusal for refusal in (found.fifo, found.lock))


def test_serial_rights() -> None:
    assert rights.check_serial_rights({"dialout", "users"}, False).status is Status.OK
    assert rights.check_serial_rights(set(), True).status is Status.OK
    outside = rights.check_serial_rights({"users"}, False)
    assert outside.status is Status.WARN and outside.fix.startswith("sudo usermod -aG dialout $USER")


def test_serial_timers(tmp_path: Path) -> None:
    assert rights.check_serial_timers(tmp_path).status is Status.SKIPPED
    port = "sys__bus__usb-serial__devices__ttyUSB{}__latency_timer"
    tree(tmp_path, **{port.format(0): "1\n"})
    assert rights.check_serial_timers(tmp_path).status is Status.OK
    tree(tmp_path, **{port.format(1): "16\n"})
    slow = rights.check_serial_timers(tmp_path)
    assert (slow.status, slow.found) == (Status.WARN, "ttyUSB0 1 ms, ttyUSB1 16 ms")
    assert slow.fix == "echo 1 | sudo tee /sys/bus/usb-serial/devices/ttyUSB1/latency_timer"


def test_findings_as_lines_and_as_data() -> None:
    good = Check("a", Status.OK, "fine", "", {"n": 1})
    bad = Check.failed("b", ValueError("it is broken; mend it; then run again"))
    assert line(good) == "ok       a                fine"
    assert line(bad).splitlines()[1].strip() == "fix: mend it; then run again"
    assert passed([good, Check("c", Status.WARN, "meh", "fix"), Check.skipped("d", "--x")])
    assert not passed([good, bad])
    plain = document([good, bad])
    assert plain["passed"] is False and [check["status"] for check in plain["checks"]] == ["ok", "fail"]
