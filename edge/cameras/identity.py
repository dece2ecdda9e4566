"""Which camera stands behind a device node: what the kernel knows of it, and where it is plugged in.

Nodes are numbered as they come: after a replug `/dev/video0` may be another camera. `/dev/v4l/by-id` and
`/dev/v4l/by-path` hold names that stay; what is read here is what those names are made of.
"""

from __future__ import annotations

from pathlib import Path

SYS, DEV = Path("/sys"), Path("/dev")


def identity_of(device: Path, sys: Path = SYS) -> str:
    """Maker, product, serial number and port of a camera, or what is known of them; "" when nothing is.

    Two cameras of one make often bear the same serial number, so the port counts too.
    """
    node = sys / "class" / "video4linux" / device.resolve().name
    found = [_read(node / "name"), _read(node / "index")]
    interface = node / "device"
    if interface.exists():
        parent = interface.resolve().parent  # of a USB camera: the interface's device
        ids = [_read(parent / name) for name in ("idVendor", "idProduct", "serial")]
        found += ids if any(ids) else []
        found.append(parent.name if any(ids) else interface.resolve().name)
    return " ".join(word for word in found if word)


def lasting_name(device: Path, dev: Path = DEV) -> Path | None:
    """A name of the device that stays with the camera, or with its port; None when it has none, or is one."""
    links = [*sorted(dev.glob("v4l/by-id/*")), *sorted(dev.glob("v4l/by-path/*"))]
    if device in links:
        return None
    return next((link for link in links if link.resolve() == device.resolve()), None)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""
