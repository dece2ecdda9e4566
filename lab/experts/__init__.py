"""Scripted experts of the simulated tasks, and the recorders that turn them into datasets."""

import edge.sim  # noqa: F401  # before mujoco is imported, which then chooses how it draws
