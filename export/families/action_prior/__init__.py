"""The network of *Learning Action Priors for Cross-embodiment Robot Manipulation* (arXiv:2606.26095)."""
