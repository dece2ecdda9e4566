"""The robot's side: loads a bundle of engines and drives an arm through the bridge. Imports no torch."""

from firmware_bridge import __version__

__all__ = ["__version__"]
