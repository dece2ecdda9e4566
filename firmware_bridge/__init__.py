"""The wire between host and microcontroller, and the firmware that executes chunks at 1 kHz."""

__version__ = "0.2.0.dev0"
