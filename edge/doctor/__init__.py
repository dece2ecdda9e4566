"""The checks of `edge-doctor`: each opens the thing itself and reports what it found, in figures, with a fix."""

from edge.doctor.check import Check, Status

__all__ = ["Check", "Status"]
