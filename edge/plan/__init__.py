"""The commanded trajectory, without clocks or I/O: timeline, splines, pace, checks."""
