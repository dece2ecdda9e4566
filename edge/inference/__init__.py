"""The inference process: what it is asked and answers, the shared memory between it and control."""
