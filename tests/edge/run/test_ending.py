"""The one place where a motion ends: whatever ends it, the arm is at rest with its drive off, and the words are so."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.errors import InputError, SafetyStop
from edge.log.trace import read_trace
from edge.run.arm import ConnectedArm
from edge.run.commands import Command
from edge.run.ending import End, drive
from edge.run.signals import SIGNALS, Operator
from firmware_bridge.children import STOP_SIGNALS
from firmware_bridge.codes import DeviceState
from firmware_bridge.errors import HandshakeError, LinkLost, Refused
from tests.support import FRANKA, Rig, broken_limits, swing


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    """A device that is not armed yet; however a test ends it, no limit was broken and the drive is off."""
    rig = Rig(tmp_path / "trace.csv")
    rig.device.tick()
    yield rig
    rig.device.tick(1500)
    state = rig.device.state
    rig.close()
    assert state in (DeviceState.IDLE, DeviceState.SILENT, DeviceState.ESTOP)
    assert broken_limits(read_trace(tmp_path / "trace.csv"), FRANKA) == []


def connected(rig: Rig) -> ConnectedArm:
    return ConnectedArm.connect(FRANKA, rig.client)


def in_motion(rig: Rig, how: Callable[[], End]) -> Callable[[], End]:
    def control() -> End:
        rig.commit(swing(1, rig.device.now_us + 100_000))
        rig.run(500)
        assert rig.device.state == DeviceState.STREAMING
        return how()

    return control


def raising(error: Exception) -> Callable[[], End]:
    def control() -> End:
        raise error

    return control


@pytest.mark.parametrize("ended", ["duration", "user", "policy"])
def test_a_planned_end_leaves_the_drive_off(rig: Rig, ended: str) -> None:
    assert drive(connected(rig), Operator(), in_motion(rig, lambda: End(ended))) == End(ended)
    assert rig.device.state == DeviceState.IDLE


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SafetyStop("refused five times"), "refused five times"),
        (InputError("joint 3 stands outside"), "joint 3 stands outside"),
        (HandshakeError("no clock"), "no clock"),
        (BrokenPipeError(32, "Broken pipe"), "an error of vla-edge's own, BrokenPipeError: [Errno 32] Broken pipe"),
        (ZeroDivisionError("division by zero"), "an error of vla-edge's own, ZeroDivisionError: division by zero"),
        (MemoryError(), "an error of vla-edge's own, MemoryError"),
        (UnicodeEncodeError("ascii", "\u00e9", 0, 1, "ordinal not in range"), "UnicodeEncodeError"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_any_error_stops_the_arm_and_becomes_the_reason(rig: Rig, error: Exception, words: str) -> None:
    end = drive(connected(rig), Operator(), in_motion(rig, raising(error)))
    assert end.ended == "safety stop" and end.error is not None and words in end.error
    assert rig.device.state == DeviceState.IDLE
    own = not isinstance(error, (SafetyStop, InputError, HandshakeError))
    assert (end.traceback is not None) is own


def test_what_is_no_error_passes_once_the_arm_is_at_rest(rig: Rig) -> None:
    def leave() -> End:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        drive(connected(rig), Operator(), in_motion(rig, leave))
    assert rig.device.state == DeviceState.IDLE


@pytest.mark.parametrize("lost", ["command", "answer", "both, for a while"])
def test_an_arming_without_an_answer_is_followed_by_disarming(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    arm = connected(rig)
    write, read = rig.device.write, rig.device.read
    until_us = rig.device.now_us + 3_500_000
    client_arm = rig.client.arm

    def arming(pose: tuple[int, ...], loop_tick: int) -> None:
        if lost != "answer":
            monkeypatch.setattr(rig.device, "write", lambda data, channel=0: None)
        if lost != "command":
            monkeypatch.setattr(
                rig.device, "read", lambda: (read(), b"")[1] if rig.device.now_us < until_us else read()
            )
        if lost == "both, for a while":  # the command arrives late, after the host has given up
            kept: list[bytes] = []

            def late(data: bytes, channel: int = 0) -> None:
                kept.append(data)
                if rig.device.now_us >= until_us:
                    for one in kept:
                        write(one, channel)
                    kept.clear()

            monkeypatch.setattr(rig.device, "write", late)
        try:
            client_arm(pose, loop_tick)
        finally:
            if lost == "command":
                monkeypatch.setattr(rig.device, "write", write)
            if lost == "answer":
                monkeypatch.setattr(rig.device, "read", read)

    monkeypatch.setattr(rig.client, "arm", arming)
    with pytest.raises(HandshakeError, match="does not answer to arming"):
        drive(arm, Operator(), lambda: End("never"))
    rig.device.tick(500)
    assert rig.device.state in (DeviceState.IDLE, DeviceState.SILENT)


def test_an_arming_that_is_refused_is_reported_as_it_is(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = connected(rig)
    elsewhere = tuple(q + 500_000 for q in arm.standing().measured_urad)
    client_arm = rig.client.arm
    monkeypatch.setattr(rig.client, "arm", lambda pose, loop_tick: client_arm(elsewhere, loop_tick))
    with pytest.raises(Refused, match="refuses arming"):
        drive(arm, Operator(), lambda: End("never"))


def test_an_arm_that_may_be_on_is_named(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = connected(rig)

    def gone(*_: object) -> None:
        raise LinkLost("the line broke")

    def arming(pose: tuple[int, ...], loop_tick: int) -> None:
        monkeypatch.setattr(rig.client, "stop", gone)
        raise HandshakeError("the device does not answer to arming")

    monkeypatch.setattr(rig.client, "arm", arming)
    with pytest.raises(HandshakeError, match="does not answer to arming; and the drive may be on: the line broke"):
        drive(arm, Operator(), lambda: End("never"))


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.parametrize("count", [1, 2, 50])
def test_signals_before_arming_interrupt_once(rig: Rig, number: signal.Signals, count: int) -> None:
    before, cleaned, arm = [signal.getsignal(one) for one in SIGNALS], 0, connected(rig)
    with pytest.raises(KeyboardInterrupt), Operator() as operator:
        try:
            os.kill(os.getpid(), number)
        finally:
            for _ in range(count - 1):
                os.kill(os.getpid(), number)
            cleaned += 1
    assert cleaned == 1 and operator.stops
    with pytest.raises(KeyboardInterrupt):  # and nobody arms after it
        drive(arm, operator, lambda: End("never"))
    assert [signal.getsignal(one) for one in SIGNALS] == before


def in_a_conversion() -> None:
    """As PyOpenGL converts what it passes to C: ctypes makes an `ArgumentError` of whatever is raised there."""

    class Converted:
        @classmethod
        def from_param(cls, value: int) -> int:
            os.kill(os.getpid(), signal.SIGTERM)
            return value

    function = ctypes.CDLL(None).labs
    function.argtypes = [Converted]
    function(1)


def in_a_class_that_is_made() -> None:
    """Before Python 3.12 a `RuntimeError`."""

    class Named:
        def __set_name__(self, owner: type, name: str) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    type("Made", (), {"field": Named()})


def in_what_reports_each_failure() -> None:
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    except BaseException:
        raise InputError("the bundle cannot be read") from None


@pytest.mark.parametrize("raises", [in_a_conversion, in_a_class_that_is_made, in_what_reports_each_failure])
def test_an_interrupt_that_others_wrapped_is_one_again(raises: Callable[[], None]) -> None:
    with pytest.raises(KeyboardInterrupt), Operator():
        raises()


class Destroyed:
    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)


def test_an_interrupt_that_a_destructor_lost_is_raised_by_the_next_or_by_arming(
    rig: Rig, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sys.unraisablehook
    with pytest.raises(KeyboardInterrupt), Operator() as operator:
        Destroyed()
        assert operator.stops
        drive(connected(rig), operator, lambda: End("never"))
    reached = False
    with pytest.raises(KeyboardInterrupt), Operator():
        Destroyed()
        reached = True
        os.kill(os.getpid(), signal.SIGTERM)
    assert reached and sys.unraisablehook is before
    assert capsys.readouterr() == ("", "")


def test_what_else_a_destructor_raises_is_told_as_before(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[object] = []

    class Broken:
        def __del__(self) -> None:
            raise ValueError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", told.append)
        with Operator():
            Broken()
    assert len(told) == 1


@pytest.mark.parametrize("number", STOP_SIGNALS)
@pytest.mark.parametrize("count", [1, 2, 50])
def test_signals_from_arming_on_are_commands(rig: Rig, number: signal.Signals, count: int) -> None:
    with Operator() as operator:

        def stopped() -> End:
            for _ in range(count):
                os.kill(os.getpid(), number)
            assert operator.stops
            return End("user")

        def again(state: object) -> None:
            os.kill(os.getpid(), number)

        assert drive(connected(rig), operator, in_motion(rig, stopped), again) == End("user")


def test_other_commands_count_from_the_run_s_beginning_on() -> None:
    with Operator() as operator:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert not operator.commands.pending(Command.START)
        operator.listen()
        os.kill(os.getpid(), signal.SIGUSR1)
        assert operator.commands.pending(Command.START)
