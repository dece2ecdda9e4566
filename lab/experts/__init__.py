"""Scripted experts of the simulated tasks, and the recorders that turn them into datasets."""
