"""What `edge-doctor` looks at: each check opens the thing itself and says what it found, in figures, with a cure."""

from edge.doctor.check import Check, Status

__all__ = ["Check", "Status"]
