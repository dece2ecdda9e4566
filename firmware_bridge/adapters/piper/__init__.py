"""An AgileX Piper on CAN: its frames, its drive, and a simulated one."""
