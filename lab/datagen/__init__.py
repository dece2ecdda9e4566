"""Expert trajectories of many arms with real physics, as LeRobot v3 datasets. Runs in an environment of its own."""
