"""The bytes of a Piper beside its maker's own encoder and decoder."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.adapters.piper import frames
from firmware_bridge.adapters.piper.frames import Gripper, Health, MotorHealth, MotorLimits, Status

FRAMES = 10_000


@pytest.fixture(scope="module")
def sdk() -> Any:
    return pytest.importorskip("piper_sdk", reason="pip install piper_sdk")


def sent_by(sdk: Any, kind: str, **fields: Any) -> tuple[int, bytes]:
    """What the maker's encoder makes of a message."""
    from piper_sdk.protocol.protocol_v2 import C_PiperParserV2

    message, frame = sdk.PiperMessage(), SimpleNamespace(arbitration_id=0, data=[])
    message.type_ = getattr(sdk.ArmMsgType, kind)
    for name, value in fields.items():
        setattr(message, name, value)
    assert C_PiperParserV2().EncodeMessage(message, frame)
    return frame.arbitration_id, bytes(frame.data)


def told_to(sdk: Any, identity: int, data: bytes) -> Any:
    """What the maker's decoder makes of a frame."""
    from piper_sdk.protocol.protocol_v2 import C_PiperParserV2

    message = sdk.PiperMessage()
    frame = SimpleNamespace(arbitration_id=identity, data=bytearray(data), timestamp=0.0)
    assert C_PiperParserV2().DecodeMessage(frame, message)
    return message


def test_ten_thousand_commands_and_reports_are_those_of_the_maker(sdk: Any) -> None:
    draw = random.Random(1)
    for _ in range(FRAMES // 5):
        q = [draw.uniform(-math.pi, math.pi) for _ in range(2)]
        counts = [round(math.degrees(one) * 1000) for one in q]
        pair = draw.randrange(3)
        joints = sdk.ArmMsgJointCtrl(**{f"joint_{2 * pair + 1 + at}": counts[at] for at in range(2)})
        kind = f"PiperMsgJointCtrl_{2 * pair + 1}{2 * pair + 2}"
        assert sent_by(sdk, kind, arm_joint_ctrl=joints) == (frames.TARGETS[pair], frames.pack_pair(*q))
        told = told_to(sdk, frames.POSITIONS[pair], frames.pack_pair(*q)).arm_joint_feedback
        theirs = [getattr(told, f"joint_{2 * pair + 1 + at}") for at in range(2)]
        assert theirs == counts
        again = frames.unpack_pair(frames.pack_pair(*q))
        assert max(abs(a - b) for a, b in zip(again, q)) < 1e-5

        width, effort = draw.uniform(0, 0.1), draw.uniform(0, 5)
        on, clears = draw.random() < 0.5, draw.random() < 0.5
        command = sdk.ArmMsgGripperCtrl(round(width * 1e6), round(effort * 1000), on + 2 * clears, 0)
        assert sent_by(sdk, "PiperMsgGripperCtrl", arm_gripper_ctrl=command) == (
            frames.GRIPPER,
            frames.gripper_command(width, effort, on, clears),
        )

        status = Status(*(draw.randrange(most) for most in (8, 16, 6, 8, 2)), draw.randrange(64), draw.randrange(64))
        theirs = told_to(sdk, frames.STATUS, status.pack()).arm_status_msgs
        assert (theirs.ctrl_mode, theirs.arm_status, theirs.mode_feed) == (status.control, status.state, status.move)
        assert theirs.err_code == status.beyond << 8 | status.silent and Status.unpack(status.pack()) == status

        grip = Gripper(round(width, 6), round(effort, 3), Health(draw.randrange(256)))
        theirs = told_to(sdk, frames.WIDTH, grip.pack()).gripper_feedback
        assert (theirs.grippers_angle, theirs.grippers_effort) == (round(width * 1e6), round(effort * 1000))
        assert theirs.status_code == grip.flags and Gripper.unpack(grip.pack()) == grip

        number = draw.randrange(6)
        volts, amps = draw.randrange(300) / 10, draw.randrange(9000) / 1000
        health = MotorHealth(volts, draw.randrange(-20, 90), draw.randrange(-20, 90), Health(draw.randrange(256)), amps)
        theirs = getattr(told_to(sdk, frames.HEALTHS[number], health.pack()), f"arm_low_spd_feedback_{number + 1}")
        assert (theirs.foc_temp, theirs.motor_temp) == (health.driver_c, health.motor_c)
        assert (theirs.vol, theirs.bus_current) == (round(10 * health.voltage_v), round(1000 * health.current_a))
        assert theirs.foc_status_code == health.flags and MotorHealth.unpack(health.pack()) == health


def test_what_is_asked_and_set_is_that_of_the_maker(sdk: Any) -> None:
    mode = sdk.ArmMsgMotionCtrl_2(0x01, 0x01, 100, 0x00)
    assert sent_by(sdk, "PiperMsgMotionCtrl_2", arm_motion_ctrl_2=mode) == (frames.MODE, frames.joint_mode(100))
    resume = sdk.ArmMsgMotionCtrl_1(0x02, 0, 0)
    assert sent_by(sdk, "PiperMsgMotionCtrl_1", arm_motion_ctrl_1=resume) == (frames.STOP, frames.RESUME)
    cleared = sdk.ArmMsgJointConfig(7, 0, 0, 0x7FFF, 0xAE)
    assert sent_by(sdk, "PiperMsgJointConfig", arm_joint_config=cleared) == (frames.CONFIGURE, frames.CLEAR_ERRORS)
    for motor in range(1, 7):
        for on in (True, False):
            switch = sdk.ArmMsgMotorEnableDisableConfig(motor, 2 if on else 1)
            expected = frames.ENABLE, frames.enable_motor(motor, on)
            assert sent_by(sdk, "PiperMsgMotorEnableDisableConfig", arm_motor_enable=switch) == expected
        for acceleration in (False, True):
            search = sdk.ArmMsgSearchMotorMaxAngleSpdAccLimit(motor, 1 + acceleration)
            expected = frames.ASK_LIMITS, frames.ask_limits(motor, acceleration)
            kind = "PiperMsgSearchMotorMaxAngleSpdAccLimit"
            assert sent_by(sdk, kind, arm_search_motor_max_angle_spd_acc_limit=search) == expected
        limits = MotorLimits(motor, math.radians(150.1), math.radians(-150.2), 300)
        told = told_to(sdk, frames.LIMITS, limits.pack()).arm_feedback_current_motor_angle_limit_max_spd
        theirs = (told.motor_num, told.max_angle_limit, told.min_angle_limit, told.max_joint_spd)
        assert theirs == (motor, 1501, -1502, 300)
        again = MotorLimits.unpack(limits.pack())
        assert (again.high_rad, again.low_rad) == pytest.approx((limits.high_rad, limits.low_rad))


@pytest.mark.parametrize(
    ("text", "version"),
    [
        (b"H-V1.2-1  S-V1.8-2  2026", (1, 8, 2)),
        (b"S-V1.5-8", (1, 5, 8)),
        (b"S-V1.x-2", None),
        (b"S-V", None),
        (b"", None),
        (bytes(64), None),
    ],
)
def test_the_firmware_says_in_which_unit_speeds_are(text: bytes, version: tuple[int, int, int] | None) -> None:
    assert frames.firmware_version(text) == version
    if version is not None:
        assert MotorLimits(1, 1.0, -1.0, 300).speed_rad_s(version) == 3.0
        assert MotorLimits(1, 1.0, -1.0, 3000).speed_rad_s((1, 5, 7)) == 3.0


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e9])
def test_a_target_that_is_no_number_cannot_be_said(value: float) -> None:
    for pair in ((value, 0.0), (0.0, value)):
        with pytest.raises((ValueError, OverflowError, frames.struct.error)):
            frames.pack_pair(*pair)


@given(st.binary(min_size=8, max_size=8))
def test_any_eight_bytes_are_read_as_something(data: bytes) -> None:
    assert isinstance(frames.words(MotorHealth.unpack(data).flags), str)
    assert isinstance(frames.words(Gripper.unpack(data).flags, gripper=True), str)
    for told in (Status.unpack(data), MotorLimits.unpack(data), frames.unpack_pair(data)):
        assert told is not None
    assert frames.acceleration_rad_s2(data)[1] >= 0.0
