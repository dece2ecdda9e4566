"""The host's own checks. They name the policy's fault early; the firmware keeps the last word."""
