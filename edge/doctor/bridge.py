"""The line and the device behind it: queried, never armed."""

from __future__ import annotations

import time

from edge.arms import ArmProfile
from edge.doctor.check import Check, Status, judged
from edge.errors import SafetyStop
from edge.run.arm import client_in_real_time
from edge.run.plausible import ReportJudge, check_states
from edge.run.report import percentiles
from firmware_bridge.client import DeviceClient, stop_text
from firmware_bridge.codes import LATCHED, DeviceState
from firmware_bridge.errors import BridgeError
from firmware_bridge.messages import SCHEMA_HASH
from firmware_bridge.transports import Transport

ROUND_TRIPS = 100
ROUND_TRIP_TIMEOUT_S = 0.1
SLOWEST_ROUND_TRIP_MS = 10.0
"""An adapter that batches for 16 ms is above it, a busy desktop kernel below."""


def check_bridge(transport: Transport, arm: ArmProfile) -> list[Check]:
    """Handshake, clock, state and round trips, up to the first that fails."""
    client = client_in_real_time(transport)
    checks: list[Check] = []
    for check in (_handshake, _clock, _state, _round_trips):
        try:
            checks.append(check(client, arm))
        except (BridgeError, SafetyStop) as error:
            checks.append(Check.failed(check.__name__.strip("_").replace("_", " "), error))
            break
    return checks


def _handshake(client: DeviceClient, arm: ArmProfile) -> Check:
    caps = client.connect(arm.name, arm.hash32, arm.dof)
    found = f"'{arm.name}', firmware {caps.firmware:08x}, schema {SCHEMA_HASH:08x}, limits {arm.hash32:08x}"
    return Check("handshake", Status.OK, found, "", {"firmware": f"{caps.firmware:08x}"})


def _clock(client: DeviceClient, arm: ArmProfile) -> Check:
    error_us = client.synchronise_clock()
    return Check(
        "clock", Status.OK, f"device time known to {error_us:.0f} us", "", {"uncertainty_us": round(error_us, 1)}
    )


def _state(client: DeviceClient, arm: ArmProfile) -> Check:
    report = client.wait_for_state()
    check_states([(report.state, report.reason)])
    device_us = client.link.clock.unwrap(report.device_us)
    ReportJudge(arm).check(report, device_us, client.link.clock, client.last_state_ns)
    latched = report.state in LATCHED
    name = stop_text(report.state, report.reason) if latched else DeviceState(report.state).name
    found = f"{name}, at " + " ".join(f"{q / 1e6:.3f}" for q in report.measured_urad)
    fix = "find the cause, then clear it with the drive off"
    return judged("device state", not latched, found + " rad", fix, Status.FAIL, state=report.state)


def _round_trips(client: DeviceClient, arm: ArmProfile) -> Check:
    times_ms, lost = [], 0
    for _ in range(ROUND_TRIPS):
        began = time.perf_counter()
        answered = client.link.exchange_clock(time.sleep, ROUND_TRIP_TIMEOUT_S)
        lost += not answered
        if answered:
            times_ms.append(1000 * (time.perf_counter() - began))
        client.link.receive()
    figures = percentiles(times_ms)
    found = (
        f"p50 {figures.get('p50', 0):.2f}  p99 {figures.get('p99', 0):.2f} ms, "
        f"{lost} of {ROUND_TRIPS} unanswered, {client.link.bad_frames} damaged frames"
    )
    fix = "see 'serial timer'; check cable, baud rate and what else uses the line"
    good = not lost and figures["p99"] <= SLOWEST_ROUND_TRIP_MS
    bad = Status.FAIL if lost > ROUND_TRIPS // 2 else Status.WARN
    return judged("round trip", good, found, fix, bad, lost=lost, milliseconds=figures)
