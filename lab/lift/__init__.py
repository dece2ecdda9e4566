"""The lifting policy, trained within minutes on one GPU; see docs/notebook/lift.md."""
