"""The bytes of Damiao motors beside a public driver's encoder and decoder; the gravity model beside MuJoCo's."""

from __future__ import annotations

import math
import random

import mujoco
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firmware_bridge.adapters.damiao.frames import (
    CLEAR_ERROR,
    DISABLE,
    ENABLE,
    MOST_KD,
    MOST_KP,
    WHOLE,
    ZERO,
    Feedback,
    MitCommand,
    Ranges,
    Register,
    read_register,
    register_answer,
    write_register,
)
from firmware_bridge.adapters.gravity import GravityModel
from tests.damiao_bench import MOTORS

FRAMES = 10_000
SCALES = {"4310": Ranges(12.5, 30.0, 10.0), "4340": Ranges(12.5, 10.0, 28.0), "3507": Ranges(12.566, 50.0, 5.0)}
"""By the names that the public driver has for the models."""


def close(ours: float, theirs: float, end: float, bits: int) -> bool:
    """Within a count: the public driver cuts where ours rounds."""
    return abs(ours - theirs) <= 2 * end / ((1 << bits) - 1) * 1.001


def test_ten_thousand_frames_are_those_of_a_public_driver() -> None:
    driver = pytest.importorskip("damiao_motor", reason="pip install damiao-motor")
    draw = random.Random(1)
    motors = {model: driver.DaMiaoMotor(5, 0x15, None, motor_type=model) for model in SCALES}
    for _ in range(FRAMES):
        model = draw.choice(list(SCALES))
        ranges, theirs = SCALES[model], motors[model]
        ends = (ranges.position_rad, ranges.velocity_rad_s, ranges.torque_nm)
        q, dq, torque = (draw.uniform(-1.1 * end, 1.1 * end) for end in ends)
        kp, kd = draw.uniform(0, MOST_KP), draw.uniform(0, MOST_KD)
        sent = MitCommand.unpack(theirs.encode_cmd_msg(q, dq, torque, kp, kd), ranges)
        ours = MitCommand.unpack(MitCommand(q, dq, kp, kd, torque).pack(ranges), ranges)
        assert close(ours.position_rad, sent.position_rad, ends[0], 16)
        assert close(ours.velocity_rad_s, sent.velocity_rad_s, ends[1], 12)
        assert close(ours.torque_nm, sent.torque_nm, ends[2], 12)
        assert close(ours.kp, sent.kp, MOST_KP / 2, 12) and close(ours.kd, sent.kd, MOST_KD / 2, 12)
        told = Feedback(5, draw.choice((0, 1, 13)), q, dq, torque, draw.randrange(100), draw.randrange(100))
        data = told.pack(ranges)
        seen, again = theirs.decode_sensor_feedback(data), Feedback.unpack(data, ranges)
        assert (seen["can_id"], seen["status_code"]) == (again.motor, again.state) == (5, told.state)
        assert (seen["t_mos"], seen["t_rotor"]) == (told.driver_c, told.motor_c)
        assert abs(seen["pos"] - again.position_rad) < 1e-9
        assert abs(seen["vel"] - again.velocity_rad_s) < 1e-9 and abs(seen["torq"] - again.torque_nm) < 1e-9


def test_commands_and_register_questions_are_those_of_a_public_driver() -> None:
    driver = pytest.importorskip("damiao_motor", reason="pip install damiao-motor")
    theirs = driver.DaMiaoMotor
    assert (theirs.encode_enable_msg(), theirs.encode_disable_msg()) == (ENABLE, DISABLE)
    assert (theirs.encode_save_position_zero_msg(), theirs.encode_clear_error_msg()) == (ZERO, CLEAR_ERROR)
    sent: list[bytes] = []
    motor = theirs(0x105, 0x15, None, motor_type="4340")
    motor.send_raw = lambda data, arbitration_id: sent.append(data)
    motor.request_register_reading(Register.PMAX)
    assert sent == [read_register(0x105, Register.PMAX)]
    for register in Register:
        value = 7.0 if register in WHOLE else 12.25
        motor._send_register_cmd(0x55, int(register), write_register(0x105, register, value)[4:])
        assert sent[-1] == write_register(0x105, register, value)
        assert register_answer(sent[-1]) == (0x105, register, value)
        motor.decode_register_reply(sent[-1])
        assert motor.registers[register] == value


@given(st.integers(0, 15), st.integers(0, 15), st.floats(-13, 13), st.floats(-31, 31), st.floats(-11, 11))
def test_feedback_comes_back(motor: int, state: int, q: float, dq: float, torque: float) -> None:
    ranges = SCALES["4310"]
    told = Feedback.unpack(Feedback(motor, state, q, dq, torque, 40, 41).pack(ranges), ranges)
    assert (told.motor, told.state) == (motor, state)
    assert told.position_rad == pytest.approx(min(max(q, -12.5), 12.5), abs=2e-4)
    assert told.velocity_rad_s == pytest.approx(min(max(dq, -30.0), 30.0), abs=8e-3)
    assert told.torque_nm == pytest.approx(min(max(torque, -10.0), 10.0), abs=3e-3)


@given(st.binary(max_size=12))
def test_any_frame_is_an_answer_about_a_register_or_none(data: bytes) -> None:
    answer = register_answer(data)
    assert answer is None or len(data) == 8


def test_a_value_that_is_no_number_is_never_sent() -> None:
    for field in range(5):
        values = [0.0] * 5
        values[field] = math.nan
        with pytest.raises(ValueError, match="NaN"):
            MitCommand(*values).pack(SCALES["4310"])


def test_scales_that_no_motor_has_are_known() -> None:
    assert SCALES["4310"].is_plausible
    for wrong in (0.0, -12.5, math.nan, math.inf, 1e30):
        assert not Ranges(wrong, 30.0, 10.0).is_plausible and not Ranges(12.5, 30.0, wrong).is_plausible


def test_gravity_is_what_mujoco_computes() -> None:
    def row(values: tuple[float, ...]) -> str:
        return " ".join(map(str, values))

    opened = "".join(
        f'<body pos="{row(one.origin_m)}" euler="{row(one.rpy_rad)}"><joint axis="{row(one.axis)}"/>'
        f'<inertial pos="{row(one.com_m)}" mass="{one.mass_kg + 1e-9}" diaginertia="1e-6 1e-6 1e-6"/>'
        for one in MOTORS.motors
    )
    payload_kg = 0.9
    tool = f'<body><inertial pos="0 0 0" mass="{payload_kg}" diaginertia="1e-6 1e-6 1e-6"/></body>'
    closed = "</body>" * len(MOTORS.motors)
    model = mujoco.MjModel.from_xml_string(
        '<mujoco><compiler angle="radian" eulerseq="XYZ"/><option gravity="0 0 -9.81"/>'
        f"<worldbody>{opened}{tool}{closed}</worldbody></mujoco>"
    )
    data, draw = mujoco.MjData(model), np.random.default_rng(1)
    gravity = GravityModel([one.link for one in MOTORS.motors], payload_kg)
    for _ in range(100):
        data.qpos[:] = draw.uniform(-3, 3, model.nq)
        mujoco.mj_forward(model, data)
        assert np.allclose(data.qfrc_bias, gravity.torques_nm(data.qpos), atol=1e-6)
