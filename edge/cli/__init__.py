"""One module per command of the robot: arguments and wiring only."""
