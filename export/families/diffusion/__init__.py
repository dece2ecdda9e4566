"""Diffusion Policy, as LeRobot trains it: a convolutional U-Net takes noise to a chunk of goals in many steps."""
