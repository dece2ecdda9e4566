"""The workstation's side: the policy, its training, and its export into engines."""

__version__ = "0.1.0"
