"""The inference process, its records, and the shared memory between it and control."""
