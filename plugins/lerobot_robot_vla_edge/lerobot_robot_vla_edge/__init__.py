"""An arm of vla-edge as a robot of LeRobot's; imported by LeRobot itself, which finds it by the distribution's name."""

from lerobot_robot_vla_edge.robot import VlaEdge, VlaEdgeConfig

__all__ = ["VlaEdge", "VlaEdgeConfig"]
