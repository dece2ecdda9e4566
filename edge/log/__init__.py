"""What a run leaves behind: samples in preallocated arrays, a report, a plot."""
