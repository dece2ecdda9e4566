"""The workstation's side: the policy, its training, and its export into engines."""
