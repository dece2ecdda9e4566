"""What the policy needs of a camera, and what a camera needs of whatever makes its frames."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from edge.errors import InputError, VlaEdgeError


class CameraError(InputError):
    """A camera that cannot be opened."""


class CameraLost(VlaEdgeError):
    """A camera that was there does not deliver any more; it may come back."""


class CameraUnhealthy(VlaEdgeError):
    """A camera whose frames must not be used now; the message says which, why, and what to do."""


@dataclass(frozen=True)
class Frame:
    """One image, uint8 (height, width, 3), RGB.

    `captured_ns` is the host's monotonic time of its capture, `sequence` counts the frames of this camera from 0.
    """

    image: NDArray[np.uint8]
    captured_ns: int
    sequence: int


@dataclass(frozen=True)
class SourceTraits:
    """What is known of a source beforehand.

    period_ns    between two frames; 0 when a frame is made whenever one is asked for
    never_still  its pixels always change: a sensor's noise never repeats, a drawn picture may
    description  what it delivers and how that becomes the policy's image
    fix         what to try when no frames come
    identity    which device it is and in which mode, as far as that is known: one that comes back must have the same
    native_px    (height, width) of its frames before they become the policy's; None for one that is drawn at any size
    """

    period_ns: int
    never_still: bool
    description: str
    fix: str
    identity: str = ""
    native_px: tuple[int, int] | None = None


class FrameSource(Protocol):
    """Makes frames, one after the other."""

    @property
    def traits(self) -> SourceTraits:
        """What is known of it."""

    def read(self) -> Frame:
        """Waits for the next frame. Raises `CameraLost`."""

    def close(self) -> None:
        """Frees the device."""


class CameraDriver(Protocol):
    """A scheme of `--camera`: a frozen dataclass of the options in its URL.

    A driver may have a method `check`, without arguments, for what can be known before anything is opened: cameras are
    opened last. It raises `CameraError`.
    """

    FORM: ClassVar[str]

    def open(self, frame_px: tuple[int, int], clock_ns: Callable[[], int]) -> FrameSource:
        """Frames of `frame_px` (height, width). Raises `CameraError`."""


class Camera(Protocol):
    """Delivers the newest frame, or says why there is none that may be used."""

    def grab(self) -> Frame:
        """The newest frame; never waits for one. Raises `CameraUnhealthy`."""

    def close(self) -> None:
        """Frees the device."""
