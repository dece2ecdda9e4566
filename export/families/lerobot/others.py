"""Types of policy that have no exporter: what they are, and what of them is missing here.

Facts: LeRobot 0.3.3 to 0.6.1, the `configuration_*.py` and `modeling_*.py` of each type.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ONE_ACTION = "gives one action a step, and chunks are what is run here"
NETWORKS = ("eo1", "evo1", "fastwam", "lingbot_va", "molmoact2", "multi_task_dit", "vla_jepa", "wall_x")
JUDGES = ("reward_classifier", "robometer", "sarm", "topreward")
OTHERS: Mapping[str, str] = {
    "xvla": "X-VLA gives 14 or 20 numbers of end effectors or of two arms, and Florence-2 sees for it; neither is "
    "implemented",
    "vqbet": "VQ-BeT draws codes of a residual quantiser from several observations; drawing is not implemented",
    "tdmpc": f"TD-MPC plans in a learned model at every step; it {ONE_ACTION}",
    "sac": f"SAC {ONE_ACTION}",
    "gaussian_actor": f"a Gaussian actor {ONE_ACTION}",
    **dict.fromkeys(
        ("pi0_fast", "pi0fast"), "pi0-FAST writes its actions as tokens, one after another; that is not implemented"
    ),
    **dict.fromkeys(NETWORKS, "its network is not implemented"),
    **dict.fromkeys(JUDGES, "it judges what a policy does and moves no arm"),
}
"""By the `type` of a config."""
NVIDIAS = ("gr00t", "eagle")


def why_not(config: Mapping[str, Any]) -> str:
    """What a config names that has no exporter, in a few words."""
    kind = config.get("type")
    if kind is not None:
        reason = OTHERS.get(str(kind))
        return f"a policy of type '{kind}'" + ("" if reason is None else f" ({reason})")
    named = f"{config.get('model_type')} {config.get('architectures')}".lower()
    if any(name in named for name in NVIDIAS):
        return "NVIDIA's own folder of GR00T; what LeRobot's training makes of it is read (type 'groot', N1.7)"
    return "no 'type' of a policy, so LeRobot did not write it"
