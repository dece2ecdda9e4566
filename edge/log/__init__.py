"""What a run leaves behind: samples, an MCAP log and its messages, a plot, datasets in LeRobot's format."""
