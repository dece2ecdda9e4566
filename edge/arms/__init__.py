"""Arm profiles: one TOML file per arm, and the loader that checks it."""

from edge.arms.profile import ArmProfile, JointLimits, ProfileError, VelocityEdges, available_arms, load_arm

__all__ = ["ArmProfile", "JointLimits", "ProfileError", "VelocityEdges", "available_arms", "load_arm"]
