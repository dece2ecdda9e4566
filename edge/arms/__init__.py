"""Arms: a profile each, in TOML, and what opens the line of one by its URL."""

from edge.arms.profile import ArmProfile, GoalBounds, JointLimits, VelocityEdges
from edge.arms.reading import ProfileError, available_arms, load_arm

__all__ = ["ArmProfile", "GoalBounds", "JointLimits", "ProfileError", "VelocityEdges", "available_arms", "load_arm"]
