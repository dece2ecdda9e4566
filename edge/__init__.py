"""The robot's side: loads a bundle of engines and drives an arm through the bridge. Imports no torch."""

__version__ = "0.1.0"
