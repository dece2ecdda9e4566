"""Which URL is which of a policy's cameras: `--camera NAME=URL`, a bare URL only where there is one."""

from __future__ import annotations

import re
from collections.abc import Sequence

from edge.cameras.base import CameraError

NAMED = re.compile(r"([\w-]+)=(.+)", re.ASCII | re.DOTALL)
"""A URL begins with its scheme and a colon, so what stands before an = that comes first is a name."""


def split_name(text: str) -> tuple[str | None, str]:
    """Name and URL of `NAME=URL`; None and the URL of a bare one."""
    match = NAMED.fullmatch(text)
    return (match[1], match[2]) if match else (None, text)


def assigned(given: Sequence[str], names: Sequence[str]) -> tuple[str, ...]:
    """The URL of each of a policy's cameras, in the order of `names`. Raises `CameraError`."""
    form = " ".join(f"--camera {name}=URL" for name in names) or "no --camera"
    urls: dict[str, str] = {}
    for text in given:
        name, url = split_name(text)
        if name is None and len(names) != 1:
            raise CameraError(f"--camera {text}: this bundle sees through {len(names)} cameras; give {form}")
        name = names[0] if name is None else name
        if name not in names:
            raise CameraError(f"--camera {text}: this bundle has no camera '{name}'; give {form}")
        if name in urls:
            raise CameraError(f"--camera {text}: camera '{name}' is given twice; give {form}")
        urls[name] = url
    missing = [name for name in names if name not in urls]
    if missing:
        raise CameraError(f"no --camera for '{missing[0]}'; give {form}")
    return tuple(urls[name] for name in names)
