"""A bundle of vla-edge as a policy of LeRobot's, which imports this by the name of the distribution."""

from lerobot_policy_vla_edge.configuration_vla_edge import VlaEdgeConfig

__all__ = ["VlaEdgeConfig"]
