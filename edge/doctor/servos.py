"""A bus of servos, read and never written: which answer, whose calibration it is, what they are supplied with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from edge.arms import ArmProfile
from edge.arms.feetech import ArmBus, feetech_url, joint_spans
from edge.doctor.check import Check, Status, judged
from edge.errors import InputError
from edge.run.report import percentiles
from firmware_bridge.adapters.feetech import packets
from firmware_bridge.adapters.feetech import registers as reg
from firmware_bridge.adapters.feetech.bus import ServoBus, open_bus
from firmware_bridge.adapters.feetech.calibration import (
    Calibration,
    operating_range,
    scales,
)
from firmware_bridge.adapters.feetech.health import HOTTEST_C
from firmware_bridge.adapters.feetech.servos import (
    LET_GO,
    NEAR_UNITS,
    Grip,
    Image,
    check_calibrated,
    find,
    need,
    position,
    supply,
)
from firmware_bridge.adapters.feetech.timing import bus_cycle, question_s
from firmware_bridge.errors import BridgeError

QUESTIONS = 100
LEAST_ANSWERED = 0.99
WARM_C = HOTTEST_C - 10
Images: TypeAlias = Mapping[int, Image]


def check_servos(url: str, arm: ArmProfile, opened: Callable[[str], ServoBus] = open_bus) -> list[Check]:
    """Of every bus: the calibration, the supply, where the joints stand, and the answers; what needs the one before is
    left out when that fails."""
    parsed = feetech_url(url)
    try:
        buses = parsed.buses(arm)
    except InputError as error:
        return [Check.failed("servo bus", error)]
    return [
        replace(check, name=f"{one.side} {check.name}".lstrip())
        for one in buses
        for check in _check_bus(one, parsed.grip, opened)
    ]


def _check_bus(one: ArmBus, grip: float, opened: Callable[[str], ServoBus]) -> list[Check]:
    arm = one.arm
    try:
        bus = opened(one.port)
    except BridgeError as error:
        return [Check.failed("servo bus", error)]
    try:
        servos = dict(enumerate(arm.joints, start=1))
        checks: list[Check] = []
        calibration = None
        try:
            calibration = one.calibration()
            servos = {made.servo: made.joint for made in calibration.servos}
        except BridgeError as error:
            checks.append(Check.failed("calibration", error))
        try:
            images = {servo: find(bus, joint, servo) for servo, joint in servos.items()}
        except BridgeError as error:
            return [Check.failed("servo bus", error), *checks]
        checks.insert(0, _bus(images, servos))
        if calibration is not None:
            checks.append(_calibration(images, calibration, arm))
            checks.append(_grip(images, calibration, arm, grip))
            if checks[-2].status is Status.OK:
                checks.append(_stands(bus, images, calibration, arm))
        return [*checks, _supply(bus, images, servos), _temperature(bus, servos), _answers(bus, servos)]
    finally:
        bus.close()


def _bus(images: Images, servos: dict[int, str]) -> Check:
    holding = [joint for servo, joint in servos.items() if images[servo][reg.TORQUE_ENABLE]]
    held = f", holding: {', '.join(holding)}" if holding else ", none holding"
    return judged(
        "servo bus",
        not holding,
        f"{len(servos)} STS3215 answer{held}",
        f"arming will be refused: take the arm in hand, then {LET_GO}",
        Status.FAIL,
        holding=holding,
    )


def _calibration(images: Images, calibration: Calibration, arm: ArmProfile) -> Check:
    spans = joint_spans(arm)
    try:
        ranges = [operating_range(*pair) for pair in zip(scales(calibration, spans), spans)]
        for one in calibration.servos:
            check_calibrated(images[one.servo], one)
    except BridgeError as error:
        return Check.failed("calibration", error)
    short = [
        f"{span.name} to {math.degrees(low):.0f}..{math.degrees(high):.0f} degrees"
        for span, (low, high) in zip(spans, ranges)
        if (low, high) != span.operating_rad
    ]
    found = "the servos hold its offsets" + (f"; narrowed by the sweep: {', '.join(short)}" if short else "")
    return Check("calibration", Status.OK, found, "", {one.joint: one.homing_offset for one in calibration.servos})


def _grip(images: Images, calibration: Calibration, arm: ArmProfile, torque: float) -> Check:
    """What the jaw's servo holds, and what a run sets it to; nothing is written here."""
    if not arm.grippers:
        return Check.skipped("grip", "an arm with a gripper")
    (jaw,) = arm.grippers
    grip, image = Grip(torque=torque), images[calibration.servos[jaw].servo]
    holds = {register.address: image[register] for register in grip.registers}
    sets = {register.address: value for register, value in grip.registers.items()}
    differ = ", ".join(f"register {at} from {holds[at]} to {sets[at]}" for at in sets if holds[at] != sets[at])
    found = f"the jaw presses {grip}" + (f"; a run sets {differ}" if differ else "; its servo is set so")
    return Check("grip", Status.OK, found, "", {"holds": holds, "sets": sets})


def _stands(bus: ServoBus, images: Images, calibration: Calibration, arm: ArmProfile) -> Check:
    """Where each joint stands, and whether the arm can be armed there."""
    spans, told, outside, refused = joint_spans(arm), [], [], []
    at: dict[str, float] = {}
    limits = zip(arm.limits.position_min_rad, arm.limits.position_max_rad)
    try:
        for one, scale, span, (least, most) in zip(calibration.servos, scales(calibration, spans), spans, limits):
            q = scale.rad(scale.unwrapped(position(bus, one.joint, one.servo)))
            low, high = operating_range(scale, span)
            closed, opened = span.stops_rad
            share = (q - closed) / (opened - closed)
            told.append(f"{span.name} {round(100 * share)}%" if span.jaw else f"{span.name} {round(math.degrees(q))}")
            at[span.name] = round(q, 4)
            if not least <= q <= most:
                refused.append(
                    f"{span.name} is {math.degrees(max(least - q, q - most)):.0f} degrees outside its limits"
                )
            elif not low <= q <= high:
                outside.append(f"{span.name} by {math.degrees(max(low - q, q - high)):.0f}")
    except BridgeError as error:
        return Check.failed("pose", error)
    found = "degrees, the jaw in percent: " + ", ".join(told)
    if outside:
        found += f"; outside the operating range, from where it only moves inward: {', '.join(outside)}"
    fix = f"arming will be refused: {'; '.join(refused)}; move it inside by hand"
    return judged("pose", not refused, found, fix, Status.FAIL, position_rad=at)


def _supply(bus: ServoBus, images: Images, servos: dict[int, str]) -> Check:
    volts = {}
    try:
        for servo, joint in servos.items():
            volts[joint] = round(supply(bus, images[servo], joint, servo).voltage_v, 1)
    except BridgeError as error:
        return Check.failed("supply", error)
    found = f"{min(volts.values())} to {max(volts.values())} V, as the servos are made for"
    return Check("supply", Status.OK, found, "", volts)


def _temperature(bus: ServoBus, servos: dict[int, str]) -> Check:
    try:
        degrees = {
            joint: need(bus, joint, servo, reg.PRESENT_TEMPERATURE, NEAR_UNITS) for servo, joint in servos.items()
        }
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
