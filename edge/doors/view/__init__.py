"""The live page of a run: a process of its own, fed through shared memory, on loopback only."""
