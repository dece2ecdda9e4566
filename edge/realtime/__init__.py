"""A fixed-step loop, and what the system grants it."""
