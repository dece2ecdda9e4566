"""The folder that LeRobot's training writes, read and checked: what the policy families of LeRobot share."""
