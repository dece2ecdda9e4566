"""One module per command of the workstation: arguments and wiring only."""
