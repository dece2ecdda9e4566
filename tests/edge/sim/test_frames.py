"""Where a profile's frames put an arm's links, beside where MuJoCo has them."""

from __future__ import annotations

from collections.abc import Callable

import mujoco
import numpy as np
import pytest

from edge.arms import available_arms, load_arm
from edge.arms.chain import TIP
from edge.arms.frames import poses
from edge.sim.robots import bare_fr3, fr3_with_hand
from edge.sim.so101 import so101

ARMS: dict[str, Callable[[], mujoco.MjSpec]] = {"franka": bare_fr3, "franka_hand": fr3_with_hand, "so101": so101}
FINGERS = ("finger_left", "finger_right")


@pytest.mark.parametrize("name", ARMS)
def test_the_links_stand_where_mujoco_has_them(name: str) -> None:
    arm, model, draw = load_arm(name), ARMS[name]().compile(), np.random.default_rng(3)
    data = mujoco.MjData(model)
    for _ in range(20):
        q = dict(zip(arm.joints, draw.uniform(*np.array(arm.stops_rad).T)))
        for joint, value in q.items():
            moved = dict.fromkeys(FINGERS, value / 2) if joint == "fr3_finger_width" else {joint: value}
            for one, at in moved.items():
                data.qpos[model.joint(one).qposadr[0]] = at
        mujoco.mj_kinematics(model, data)
        root = arm.frames[0].parent
        stands = {root: (data.body(root).xpos.copy(), data.body(root).xquat.copy())}
        for frame, position, rotation in poses(arm.frames, q):
            origin, turn = stands[frame.parent]
            at, into = np.zeros(3), np.zeros(4)
            mujoco.mju_rotVecQuat(at, np.array(position), turn)
            mujoco.mju_mulQuat(into, turn, np.array(rotation))
            stands[frame.child] = origin + at, into
            if frame.child == TIP:  # `test_chain` has it, beside the simulated arm's
                continue
            np.testing.assert_allclose(origin + at, data.body(frame.child).xpos, atol=2e-4)
            assert abs(into @ data.body(frame.child).xquat) > 1 - 1e-7, frame.child
    moving = [joint for joint in range(model.njnt) if model.joint(joint).type[0] != mujoco.mjtJoint.mjJNT_FREE]
    assert {model.body(model.jnt_bodyid[joint]).name for joint in moving} == {
        frame.child for frame in arm.frames if frame.joint
    }


def test_every_axis_of_an_arm_with_frames_moves_one() -> None:
    for arm in map(load_arm, available_arms()):
        if arm.frames:
            assert {frame.joint for frame in arm.frames} - {""} == set(arm.joints)
