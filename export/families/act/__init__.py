"""ACT, as LeRobot trains it: one pass of a transformer over pictures and state gives a chunk of goals."""
