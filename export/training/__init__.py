"""Both training stages: the action prior from trajectories, then the policy from images, text and history."""
