"""The chains that drawings are made from, held against the simulated arms."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from edge.arms import load_arm
from edge.arms.chain import chain_of
from edge.sim.axes import Axes
from edge.sim.scenes import open_scene


@pytest.mark.parametrize("name", ["franka", "franka_hand", "so101"])
def test_a_chain_is_where_the_simulated_arm_is(name: str) -> None:
    arm = load_arm(name)
    chain, model = chain_of(arm.frames), open_scene(arm, 0).model
    assert chain is not None
    data, axes, draw = mujoco.MjData(model), Axes(model), np.random.default_rng(0)
    low, high = np.array(arm.operating.position_min_rad), np.array(arm.operating.position_max_rad)
    for _ in range(5):
        q = draw.uniform(low, high)
        axes.place(data, q)
        mujoco.mj_kinematics(model, data)
        place, turn = np.zeros(3), np.eye(3)
        for (pos, quat), joint, angle in zip(chain["frames"], arm.joints, q):
            place = place + turn @ np.array(pos)
            flat, about_z = (
                np.zeros(9),
                np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0]]),
            )
            mujoco.mju_quat2Mat(flat, np.array(quat) / np.linalg.norm(quat))
            turn = turn @ flat.reshape(3, 3) @ np.vstack([about_z, [0, 0, 1]])
            body = int(model.jnt_bodyid[model.joint(joint).id])
            np.testing.assert_allclose(place, data.xpos[body], atol=2e-4, err_msg=joint)
        tip = place + turn @ np.array(chain["tip_m"])
        np.testing.assert_allclose(tip, data.site("tip").xpos, atol=5e-4)
