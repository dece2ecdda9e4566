"""A fault of an arm on a bus outlives the process that has seen it, whichever arm it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from edge.arms import ArmProfile
from edge.arms.drives import DRIVES, BusUrl, drive_url
from edge.run.arm import LatchedFault
from edge.run.clearing import clear, is_latched
from firmware_bridge.adapters.damiao.frames import MotorState
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.latch import LatchFile
from firmware_bridge.adapters.piper.frames import Health
from firmware_bridge.codes import DeviceState
from tests.bus_bench import BusRig
from tests.damiao_bench import YAM, DamiaoBench, DamiaoRig
from tests.piper_bench import PIPER, PiperBench, PiperRig
from tests.servo_bench import SO101, ServoBench, ServoRig, resting


@dataclass(frozen=True)
class Kind:
    """One arm on a bus: how it breaks down, and how it is well again with nobody having cleared it."""

    arm: ArmProfile
    bench: Callable[[], Any]
    rig: Callable[[Any], BusRig]
    spoil: Callable[[Any], None]
    heal: Callable[[Any], None]
    why: str
    url: str


def servo(celsius: int) -> Callable[[Any], None]:
    return lambda bench: bench.servos[3].__setitem__(reg.PRESENT_TEMPERATURE, celsius)


def motor(state: MotorState) -> Callable[[Any], None]:
    def change(bench: Any) -> None:
        bench.motors[2].fault = state
        if state == MotorState.DISABLED:
            bench.motors[2].state = state  # its power was switched off and on

    return change


def joint(flags: Health) -> Callable[[Any], None]:
    return lambda bench: setattr(bench.arm.joints[2], "faults", flags)


KINDS = {
    "feetech": Kind(
        SO101,
        lambda: ServoBench(core=True, change=resting),
        ServoRig,
        servo(90),
        servo(30),
        "temperature",
        "feetech:/dev/ttyACM0",
    ),
    "damiao": Kind(
        YAM,
        lambda: DamiaoBench(core=True),
        DamiaoRig,
        motor(MotorState.OVERLOAD),
        motor(MotorState.DISABLED),
        "has let go: overload",
        "damiao:socketcan:can0",
    ),
    "piper": Kind(
        PIPER,
        lambda: PiperBench(core=True),
        PiperRig,
        joint(Health.STALL),
        joint(Health(0)),
        "has let go: stall",
        "piper:socketcan:can0",
    ),
}


def test_every_bus_is_one_of_these() -> None:
    def is_bus(name: str) -> bool:
        return isinstance(DRIVES.read(f"{name}:a:b" if name != "fci" else "fci:172.16.0.2"), BusUrl)

    assert {name for name in DRIVES.builtin if is_bus(name)} == set(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_its_place_has_the_name_of_the_arms_line(name: str) -> None:
    found = drive_url(KINDS[name].url)
    assert found is not None and found.latch_name.endswith(KINDS[name].url.partition(":")[2])


def test_the_number_of_a_pseudo_terminal_is_another_arms_tomorrow() -> None:
    for port, kept in (("/dev/pts/3", False), ("/dev/ttyACM0", True), ("/tmp/arm", True)):
        found = drive_url(f"feetech:{port}")
        assert found is not None and bool(found.latch_name) is kept


@pytest.mark.parametrize("name", KINDS)
def test_a_fault_outlives_the_process_and_goes_by_a_persons_word(name: str, tmp_path: Path) -> None:
    kind, file = KINDS[name], tmp_path / "arm.latch"
    bench = kind.bench()
    bench.begins_again(LatchFile(file))
    rig = kind.rig(bench).armed()
    kind.spoil(bench)
    rig.run(600)
    assert bench.state == DeviceState.FAULT
    kept = json.loads(file.read_text())
    assert kind.why in kept["why"]
    bench.drive.close()
    kind.heal(bench)

    bench.drive = bench.open_drive()
    bench.begins_again(LatchFile(file))
    assert bench.state == DeviceState.FAULT
    again = kind.rig(bench)
    with pytest.raises(LatchedFault, match=r"clear it: edge-run .* --clear"):
        again.armed()
    again.client = again.new_client(9)
    again.client.connect(kind.arm.name, kind.arm.hash32, kind.arm.dof)
    assert is_latched(again.client.wait_for_state())
    assert clear(again.client, clock_s=lambda: bench.host_ns / 1e9) is None and file.read_text() == ""

    bench.begins_again(LatchFile(file))
    third = kind.rig(bench).armed()
    assert third.state().state == DeviceState.ARMED
    third.close()
