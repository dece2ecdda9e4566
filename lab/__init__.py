"""The laboratory: scripted experts, recorders of demonstrations, experiments. Needs MuJoCo or torch."""
