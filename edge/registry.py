"""Drivers by name or URL, of the project or of an installed package: cameras, lines, arms, engines, policies.

Each kind has its `Registry` in the room that it belongs to; docs/extend.md shows how one is added.
"""

from firmware_bridge.registry import Registry, missing
from firmware_bridge.url import Url, option

__all__ = ["Registry", "Url", "missing", "option"]
