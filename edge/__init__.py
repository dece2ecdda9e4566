"""The robot's side: loads a bundle of engines and drives an arm through the bridge. Imports no torch.

The public names are imported on use, so `import edge` is light; docs/howto/python.md shows them.
"""

from importlib import import_module
from typing import Any

from firmware_bridge import __version__

_NAMES = {
    "Arm": "edge.run.front",
    "Observation": "edge.policy.function_policy",
    "connect": "edge.run.front",
    "follow": "edge.doors.following",
    "load_bundle": "edge.bundle",
    "open_policy": "edge.run.front",
    "read_log": "edge.log.reading",
    "run_policy": "edge.run.front",
}
__all__ = ["__version__", *_NAMES]


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'edge' has no attribute '{name}'")
    return getattr(import_module(_NAMES[name]), name)


def __dir__() -> list[str]:
    return __all__
