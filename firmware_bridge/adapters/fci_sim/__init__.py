"""A simulated Franka that says no: it speaks FCI, and judges every set-point as the robot does."""
