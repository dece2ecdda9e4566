"""What the policy needs of a camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError


class CameraError(InputError):
    """A camera that cannot be opened or does not deliver."""


@dataclass(frozen=True)
class Frame:
    """One image, uint8 (height, width, 3), RGB, and the host's monotonic time at which it was captured."""

    image: NDArray[np.uint8]
    captured_ns: int


class Camera(Protocol):
    """Delivers the newest frame."""

    def grab(self) -> Frame:
        """The newest frame. Raises `CameraError`."""

    def close(self) -> None:
        """Frees the device."""
