"""A bus of servos, read and never written: which answer, whose calibration it is, what they are supplied with."""

from __future__ import annotations

import time
from collections.abc import Callable

from edge.arms import ArmProfile
from edge.arms.feetech import feetech_url, joint_spans
from edge.doctor.check import Check, Status, judged
from edge.run.report import percentiles
from firmware_bridge.adapters.feetech import packets
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.bus import ServoBus, open_bus
from firmware_bridge.adapters.feetech.calibration import Calibration, read_calibration, scales
from firmware_bridge.adapters.feetech.health import HOTTEST_C
from firmware_bridge.adapters.feetech.servos import check_calibrated, find, need, supply
from firmware_bridge.adapters.feetech.timing import bus_cycle, question_s
from firmware_bridge.errors import BridgeError

QUESTIONS = 100
LEAST_ANSWERED = 0.99
WARM_C = HOTTEST_C - 10


def check_servos(url: str, arm: ArmProfile, opened: Callable[[str], ServoBus] = open_bus) -> list[Check]:
    """The bus, the calibration, the supply and the answers; what needs the one before is left out when that fails."""
    parsed = feetech_url(url)
    try:
        bus = opened(parsed.target)
    except BridgeError as error:
        return [Check.failed("servo bus", error)]
    try:
        servos = dict(enumerate(arm.joints, start=1))
        checks: list[Check] = []
        calibration = None
        try:
            calibration = read_calibration(parsed.calibration_of(arm), arm.name, arm.joints)
            servos = {one.servo: one.joint for one in calibration.servos}
        except BridgeError as error:
            checks.append(Check.failed("calibration", error))
        checks.insert(0, _bus(bus, servos))
        if checks[0].status is not Status.OK:
            return checks
        if calibration is not None:
            checks.append(_calibration(bus, calibration, arm))
        return [*checks, _supply(bus, servos), _temperature(bus, servos), _answers(bus, servos)]
    finally:
        bus.port.close()


def _bus(bus: ServoBus, servos: dict[int, str]) -> Check:
    try:
        for servo, joint in servos.items():
            find(bus, joint, servo)
    except BridgeError as error:
        return Check.failed("servo bus", error)
    holding = [joint for servo, joint in servos.items() if bus.read(servo, reg.TORQUE_ENABLE)]
    held = f", holding: {', '.join(holding)}" if holding else ", none holding"
    return Check("servo bus", Status.OK, f"{len(servos)} STS3215 answer{held}", "", {"holding": holding})


def _calibration(bus: ServoBus, calibration: Calibration, arm: ArmProfile) -> Check:
    try:
        scales(calibration, joint_spans(arm))
        for one in calibration.servos:
            check_calibrated(bus, one)
    except BridgeError as error:
        return Check.failed("calibration", error)
    found = "the servos hold its offsets, and every joint was swept far enough"
    return Check("calibration", Status.OK, found, "", {one.joint: one.homing_offset for one in calibration.servos})


def _supply(bus: ServoBus, servos: dict[int, str]) -> Check:
    volts = {}
    try:
        for servo, joint in servos.items():
            volts[joint] = round(supply(bus, joint, servo).voltage_v, 1)
    except BridgeError as error:
        return Check.failed("supply", error)
    found = f"{min(volts.values())} to {max(volts.values())} V, as the servos are made for"
    return Check("supply", Status.OK, found, "", volts)


def _temperature(bus: ServoBus, servos: dict[int, str]) -> Check:
    try:
        degrees = {joint: need(bus, joint, servo, reg.PRESENT_TEMPERATURE) for servo, joint in servos.items()}
    except BridgeError as error:
        return Check.failed("temperature", error)
    hottest = max(degrees, key=lambda joint: degrees[joint])
    found = f"hottest {hottest}, {degrees[hottest]} degrees (an arm is stopped at {HOTTEST_C})"
    return judged(
        "temperature", degrees[hottest] < WARM_C, found, "let the arm cool down, or carry less", celsius=degrees
    )


def _answers(bus: ServoBus, servos: dict[int, str]) -> Check:
    queried, size = tuple(servos), reg.PRESENT_POSITION.size
    request = packets.sync_read(queried, reg.PRESENT_POSITION.address, size)
    times_ms, heard = [], 0
    seconds = question_s(len(queried), size, delay_s=508e-6)
    for _ in range(QUESTIONS):
        began = time.perf_counter()
        heard += len(bus.query(request, queried, size, seconds))
        times_ms.append(1000 * (time.perf_counter() - began))
    figures = percentiles(times_ms)
    share = heard / (QUESTIONS * len(queried))
    period_ms = bus_cycle(len(queried)).period_ms
    found = f"{share:.1%} of the positions, asked {1000 // period_ms} times a second; p50 {figures['p50']:.2f} ms each"
    fix = "check cables and plugs, and set the USB adapter's latency timer to 1 ms"
    good = share >= LEAST_ANSWERED and figures["p50"] < period_ms
    bad = Status.FAIL if share < 0.5 else Status.WARN
    return judged("answers", good, found, fix, bad, share=round(share, 4), milliseconds=figures)
