"""The errors a person sees. Each message is one line that names the fix; the exit code belongs to the error."""

from __future__ import annotations

from firmware_bridge.reading import OneLine


class VlaEdgeError(OneLine):
    """Base of all errors that a command turns into one line and an exit code."""

    exit_code = 1


class InputError(VlaEdgeError):
    """Something the user gave cannot be used: a file, an option, a task, a port. The arm has not moved."""

    exit_code = 2


class SafetyStop(VlaEdgeError):
    """The run ended by a stop: a refusal, a watchdog, a fault. The arm stands still."""

    exit_code = 1
