"""One run: session, control, its state machine, the operator's commands, homing, supervision, report, replay."""
