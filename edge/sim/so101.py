"""The SO-101 as the simulator builds it: the published kinematics, with boxes for its links and jaws.

Joint frames, axes and masses are those of `so101_new_calib.urdf` (TheRobotStudio SO-ARM100, Apache-2.0), rounded to
0.1 mm; zero is the middle of each range. Shapes are ours. Servo gains are ours too: no identified model of an STS3215
inside an arm is public.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge.sim.library import mujoco
from edge.sim.robots import DRAWN_GROUP, SKIN, TOOL, UNSEEN_GROUP, add_pad

STIFFNESS_NM_RAD, DAMPING, TORQUE_NM, JAW_TORQUE_NM = 60.0, 2.0, 3.0, 1.2
"""Ours; the torque is close to the servo's stall torque at 12 V (data sheet: 30 kg cm), the jaw's far below it."""
ARMATURE, FRICTION_NM = 0.028, 0.052
"""As common models of the STS3215 have them; unverified there as well."""
FIXED_JAW_M = -0.0015
"""Where the inner face of the fixed jaw stands in the gripper's frame, along the way the jaws close."""
TOOL_CLEARANCE_M = 0.012
"""Between the fixed jaw and an object that is centred at the tool."""
OBJECT_M = 0.026
PARALLEL_RAD = 0.268
"""The jaws are parallel when they hold an object of `OBJECT_M`."""
JAW_HALF_M = (0.004, 0.016, 0.010)


@dataclass(frozen=True)
class Link:
    """One moving link: frame in its parent (metres, quaternion), joint and its range, mass; boxes as centre and half
    size."""

    name: str
    joint: str
    pos: tuple[float, float, float]
    quat: tuple[float, float, float, float]
    range_rad: tuple[float, float]
    mass_kg: float
    boxes: tuple[tuple[tuple[float, float, float], tuple[float, float, float]], ...]


H = 0.5**0.5
LINKS = (
    Link(
        "shoulder",
        "shoulder_pan",
        (0.0388, 0.0, 0.0624),
        (0.0, 0.0, -1.0, 0.0),
        (-1.91986, 1.91986),
        0.100,
        (((-0.015, 0.0, -0.03), (0.026, 0.022, 0.028)),),
    ),
    Link(
        "upper_arm",
        "shoulder_lift",
        (-0.0304, -0.0183, -0.0542),
        (0.5, -0.5, -0.5, -0.5),
        (-1.74533, 1.74533),
        0.103,
        (((-0.055, -0.012, 0.0185), (0.062, 0.014, 0.014)),),
    ),
    Link(
        "lower_arm",
        "elbow_flex",
        (-0.1126, -0.0280, 0.0),
        (H, 0.0, 0.0, H),
        (-1.69, 1.69),
        0.104,
        (((-0.067, 0.003, 0.0185), (0.068, 0.014, 0.014)),),
    ),
    Link(
        "wrist",
        "wrist_flex",
        (-0.1349, 0.0052, 0.0),
        (H, 0.0, 0.0, -H),
        (-1.65806, 1.65806),
        0.079,
        (((0.0, -0.030, 0.0181), (0.014, 0.026, 0.016)),),
    ),
    Link(
        "gripper",
        "wrist_roll",
        (0.0, -0.0611, 0.0181),
        (0.0172, -0.0172, 0.7069, 0.7069),
        (-2.74385, 2.84121),
        0.087,
        (((0.008, 0.0, -0.018), (0.022, 0.018, 0.022)), ((-0.010, 0.0, -0.060), (0.004, 0.010, 0.026))),
    ),
)
JAW = Link(
    "moving_jaw",
    "gripper",
    (0.0202, 0.0188, -0.0234),
    (H, H, 0.0, 0.0),
    (-0.17453, 1.74533),
    0.012,
    (((-0.002, -0.030, 0.0189), (0.005, 0.030, 0.008)),),
)


def so101() -> mujoco.MjSpec:
    """Six joints, the last of them the moving jaw."""
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.option.timestep = 0.001
    base = spec.worldbody.add_body(name="base")
    base.add_geom(**_box((0.014, 0.0, 0.031), (0.045, 0.035, 0.031)), rgba=SKIN, mass=0.147)
    body = base
    for link in LINKS:
        body = _add_link(spec, body, link)
    fixed_m = FIXED_JAW_M - JAW_HALF_M[0]
    add_pad(body, (fixed_m, 0.0, -0.0972), (JAW_HALF_M[0], JAW_HALF_M[2], JAW_HALF_M[1]))
    tool_m = FIXED_JAW_M + TOOL_CLEARANCE_M + OBJECT_M / 2
    body.add_site(name=TOOL, pos=[tool_m, 0.0, -0.0985], quat=[0.0, 1.0, 0.0, 0.0], group=UNSEEN_GROUP)
    jaw = _add_link(spec, body, JAW)
    add_pad(jaw, (-0.01233, -0.0762, 0.0189), JAW_HALF_M)
    pad = jaw.geoms[-1]
    pad.alt.type = mujoco.mjtOrientation.mjORIENTATION_AXISANGLE
    pad.alt.axisangle = [0.0, 0.0, 1.0, -PARALLEL_RAD]
    return spec


def _box(pos: tuple[float, float, float], half_m: tuple[float, float, float]) -> dict[str, object]:
    return {"type": mujoco.mjtGeom.mjGEOM_BOX, "pos": pos, "size": half_m, "group": DRAWN_GROUP}


def _add_link(spec: mujoco.MjSpec, parent: mujoco.MjsBody, link: Link) -> mujoco.MjsBody:
    """The gripper's own weight is carried: a servo that integrates its error does not sag."""
    body = parent.add_body(name=link.name, pos=link.pos, quat=link.quat, gravcomp=1)
    body.add_joint(
        name=link.joint,
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=[0, 0, 1],
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        range=list(link.range_rad),
        armature=ARMATURE,
        damping=[0.6, 0, 0],
        frictionloss=FRICTION_NM,
    )
    for pos, half_m in link.boxes:
        body.add_geom(**_box(pos, half_m), rgba=SKIN, mass=link.mass_kg / len(link.boxes))
    servo = spec.add_actuator(name=link.joint, target=link.joint, trntype=mujoco.mjtTrn.mjTRN_JOINT)
    servo.set_to_position(kp=STIFFNESS_NM_RAD, kv=DAMPING)
    servo.forcelimited = mujoco.mjtLimited.mjLIMITED_TRUE
    torque_nm = JAW_TORQUE_NM if link is JAW else TORQUE_NM
    servo.forcerange = [-torque_nm, torque_nm]
    return body
