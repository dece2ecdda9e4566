"""What the simulated Franka says no to, one rule after the other, and what it does by itself."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from firmware_bridge.adapters.fci_sim.loss import PacketLoss
from firmware_bridge.adapters.fci_sim.strict_robot import (
    FR3,
    HOME_RAD,
    MOST_LOST,
    PANDA,
    PERIOD_S,
    Ending,
    Generator,
    RobotError,
    RobotLimits,
    RobotMode,
    SetPoint,
    StrictRobot,
)

T = PERIOD_S
GENERATORS = (Generator.JOINT_POSITION, Generator.JOINT_VELOCITY)


def moving(generator: Generator = Generator.JOINT_POSITION, limits: RobotLimits = FR3, after: int = 1) -> StrictRobot:
    robot = StrictRobot(limits)
    assert robot.begin(generator, after)
    for _ in range(after):
        robot.period(None)
    assert robot.mode is RobotMode.MOVE
    return robot


def send(robot: StrictRobot, joint: int, a: float) -> None:
    """The set-point that gives one joint this acceleration."""
    v = robot.dq_d[joint] + T * a
    if robot.generator is Generator.JOINT_POSITION:
        values = list(robot.q_d)
        values[joint] += T * v
    else:
        values = [0.0] * 7
        values[joint] = v
    robot.period(SetPoint(values))


def accelerate(robot: StrictRobot, joint: int, sign: float, until: Callable[[], bool]) -> None:
    """Up to the acceleration limit within the jerk, then on."""
    most, step = robot.limits.acceleration_rad_s2[joint], T * robot.limits.jerk_rad_s3[joint]
    while not until() and robot.generator:
        send(robot, joint, sign * min(most, abs(robot.ddq_d[joint]) + step))


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("limits", [FR3, PANDA])
@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("joint", [0, 4, 6])
def test_each_limit_is_kept_to_the_last_and_no_further(
    generator: Generator, limits: RobotLimits, sign: float, joint: int
) -> None:
    error = RobotError
    most_a, most_jerk = limits.acceleration_rad_s2[joint], limits.jerk_rad_s3[joint]
    robot = moving(generator, limits)
    send(robot, joint, sign * T * most_jerk)
    assert not robot.errors
    robot = moving(generator, limits)
    send(robot, joint, sign * (T * most_jerk + 0.01))
    assert robot.errors == {error.MOTION_GENERATOR_ACCELERATION_DISCONTINUITY} and "jerk" in robot.ended[1]

    robot = moving(generator, limits)
    accelerate(robot, joint, sign, lambda: abs(robot.ddq_d[joint]) >= most_a)
    assert not robot.errors
    send(robot, joint, sign * (most_a + 0.01))
    assert robot.errors == {error.MOTION_GENERATOR_VELOCITY_DISCONTINUITY}

    robot = moving(generator, limits)
    accelerate(robot, joint, sign, lambda: False)
    assert robot.errors == {error.MOTION_GENERATOR_VELOCITY_LIMITS_VIOLATION} and robot.mode is RobotMode.REFLEX


def test_a_velocity_that_is_allowed_in_the_middle_is_not_near_the_end() -> None:
    assert FR3.velocity_span(0, 0.0) == (-2.62, 2.62)
    slowest, fastest = FR3.velocity_span(0, 2.7)
    assert slowest == -2.62 and fastest == pytest.approx(0.475, abs=0.01)
    assert FR3.velocity_span(0, 2.75)[1] == 0.0


def test_what_is_no_number_is_refused() -> None:
    robot = moving()
    robot.period(SetPoint([float("nan")] * 7))
    assert robot.mode is RobotMode.REFLEX


def test_a_lost_packet_goes_on_at_constant_acceleration() -> None:
    robot = moving()
    for _ in range(3):
        send(robot, 2, 4.0)
    q, v, a = robot.q_d[2], robot.dq_d[2], robot.ddq_d[2]
    for count in range(1, 6):
        robot.period(None)
        assert robot.dq_d[2] == pytest.approx(v + count * T * a) and robot.ddq_d[2] == a
        q += T * robot.dq_d[2]
        assert robot.q_d[2] == pytest.approx(q, abs=1e-12)
    assert (robot.lost, robot.longest_loss) == (5, 5)


def test_a_plan_that_goes_on_where_it_would_have_been_is_a_jump_after_a_loss() -> None:
    """What is smooth for its sender is a jump for the robot: the fault that this robot is there to find."""
    robot, plan_q, plan_v = moving(), HOME_RAD[0], 0.0
    for step in range(40):
        plan_v += T * (3.0 + 0.1 * step if step < 20 else 5.0 - 0.5 * (step - 20))
        plan_q += T * plan_v
        values = list(robot.q_d)
        values[0] = plan_q
        robot.period(None if 22 <= step < 27 else SetPoint(values))
    assert robot.ended[0] is Ending.REFLEX and "packets" not in robot.ended[1]


def test_twenty_in_a_row_end_the_motion() -> None:
    robot = moving()
    for _ in range(MOST_LOST - 1):
        robot.period(None)
    robot.period(SetPoint(robot.q_d))
    assert robot.mode is RobotMode.MOVE
    for _ in range(MOST_LOST):
        robot.period(None)
    assert robot.last_motion_errors == {RobotError.COMMUNICATION_CONSTRAINTS_VIOLATION}


def test_a_motion_is_not_finished_while_it_moves() -> None:
    robot = moving()
    for _ in range(20):
        send(robot, 0, 4.0)
    robot.period(SetPoint(robot.q_d, finished=True))
    assert robot.ended[0] is Ending.REFLEX
    robot = moving()
    robot.period(SetPoint(robot.q_d, finished=True))
    assert robot.ended[0] is Ending.FINISHED and robot.mode is RobotMode.IDLE


@pytest.mark.parametrize("after", [5, 100])
def test_a_motion_takes_its_time_to_begin(after: int) -> None:
    robot = StrictRobot()
    robot.begin(Generator.JOINT_POSITION, after)
    modes = []
    for _ in range(after):
        robot.period(None)
        modes.append(robot.mode)
    assert modes == [RobotMode.IDLE] * (after - 1) + [RobotMode.MOVE] and robot.lost == 0


def test_a_reflex_brakes_stays_and_recovers_only_when_it_is_asked() -> None:
    robot = moving()
    accelerate(robot, 0, 1.0, lambda: robot.dq_d[0] > 1.0)
    robot.push(0, 30.0)
    robot.period(None)
    assert robot.last_motion_errors == {RobotError.JOINT_REFLEX} and robot.external_nm[0] == 30.0
    robot.push(0, 0.0)
    for _ in range(200):
        robot.period(None)
    assert robot.dq_d == [0.0] * 7 and robot.mode is RobotMode.REFLEX
    assert not robot.begin(Generator.JOINT_POSITION, 5)
    assert robot.recover() and robot.mode is RobotMode.AUTOMATIC_ERROR_RECOVERY
    for _ in range(400):
        robot.period(None)
    assert robot.mode is RobotMode.IDLE and not robot.errors and robot.begin(Generator.JOINT_POSITION, 5)


def test_the_user_stop_is_a_persons_to_release() -> None:
    robot = moving()
    robot.press_user_stop()
    assert robot.ended[0] is Ending.USER_STOP and robot.mode is RobotMode.USER_STOPPED
    assert not robot.recover() and not robot.begin(Generator.JOINT_POSITION, 5)
    robot.release_user_stop()
    assert robot.mode is RobotMode.IDLE


def test_what_is_measured_is_not_what_is_commanded() -> None:
    robot = StrictRobot(payload_kg=1.0)
    for _ in range(200):
        robot.period(None)
    sags = [abs(a - b) for a, b in zip(robot.q, robot.q_d)]
    assert 1e-3 < sags[1] < 5e-3 and 0.0 < sags[0] < 2e-4, "gravity pulls at joint 2, the first has its noise"
    robot.begin(Generator.JOINT_POSITION, 1)
    robot.period(None)
    accelerate(robot, 0, 1.0, lambda: robot.dq_d[0] > 1.0)
    assert robot.q_d[0] - robot.q[0] > 2e-3, "it lags"


def test_the_same_seed_is_the_same_robot() -> None:
    def run(seed: int) -> list[float]:
        robot, loss = StrictRobot(seed=seed), PacketLoss(0.2, 5, seed)
        robot.begin(Generator.JOINT_POSITION, 3)
        for _ in range(100):
            lost = any(loss.next())
            robot.period(None if lost or not robot.generator else SetPoint(robot.q_d))
        return [*robot.q, robot.lost]

    assert run(1) == run(1) != run(2)


def test_as_much_is_lost_as_was_asked_for() -> None:
    loss = PacketLoss(0.05, 10, 4)
    lost = [any(loss.next()) for _ in range(40_000)]
    assert 0.04 < sum(lost) / len(lost) < 0.06
    assert "1" * 10 in "".join("01"[one] for one in lost)
