"""Whether a camera may be trusted: decided from what arrived and when, with no clock of its own."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from edge.cameras.base import Frame, SourceTraits
from edge.registry import option

MIN_STALE_NS = 250_000_000
STALE_PERIODS = 3
MIN_FROZEN_NS = 500_000_000
FROZEN_PERIODS = 10
FROZEN_FRAMES = 3
"""Fewer equal frames than this say nothing: a drawn picture may come round to the same pixels."""
ALIKE = 0.5
"""Least likeness of a camera that comes back: a place whose objects and lights have moved a little has more, another
view hardly ever."""
THUMBNAIL_PX = 16
FLAT_GREY = 4.0
"""A contrast, of 255, that says nothing about a place."""


@dataclass(frozen=True)
class HealthLimits:
    """After what time a camera counts as stale, and as frozen (None: its picture may stand still)."""

    stale_ns: int
    frozen_ns: int | None

    @staticmethod
    def of(traits: SourceTraits) -> HealthLimits:
        """The defaults for a source: 250 ms or 3 periods without a frame, 500 ms or 10 periods without a change."""
        still_ns = max(MIN_FROZEN_NS, FROZEN_PERIODS * traits.period_ns)
        return HealthLimits(
            max(MIN_STALE_NS, STALE_PERIODS * traits.period_ns), still_ns if traits.never_still else None
        )


@dataclass(frozen=True)
class HealthOptions:
    """Limits that a URL sets, of any camera; `frozen_ms` 0 allows a still picture."""

    stale_ms: float | None = option(None, least=1, most=1e9)
    frozen_ms: float | None = option(None, most=1e9)

    def limits(self, traits: SourceTraits) -> HealthLimits:
        """The defaults for a source, with what was set."""
        found = HealthLimits.of(traits)
        return HealthLimits(
            found.stale_ns if self.stale_ms is None else round(self.stale_ms * 1e6),
            found.frozen_ns if self.frozen_ms is None else round(self.frozen_ms * 1e6) or None,
        )


@dataclass(frozen=True)
class HealthState:
    """What is remembered of a camera.

    newest_ns   when its newest frame was captured; before the first one, when it was opened
    changed_ns  when the first of the newest frames with equal pixels was captured, `equal` of them in a row
    digest      of those pixels
    sequence    of the newest frame, None before the first
    lost        why it does not deliver, None while it does
    before      what it showed last before it was lost, small (`thumbnail`); None once a frame has been like it
    likeness    of the newest frame to that, 1 for the same picture
    """

    newest_ns: int
    changed_ns: int
    equal: int = 0
    digest: int = 0
    sequence: int | None = None
    lost: str | None = None
    before: NDArray[np.float32] | None = None
    likeness: float = 1.0

    @staticmethod
    def opened(now_ns: int) -> HealthState:
        """A camera that has just been opened."""
        return HealthState(now_ns, now_ns)


def seen(state: HealthState, frame: Frame) -> HealthState:
    """The state after a frame. The same frame again changes nothing."""
    if frame.sequence == state.sequence and frame.captured_ns == state.newest_ns:
        return state
    digest = zlib.crc32(np.ascontiguousarray(frame.image).data)
    same = state.sequence is not None and digest == state.digest
    likeness = 1.0 if state.before is None else likeness_of(state.before, thumbnail(frame.image))
    return HealthState(
        before=state.before if likeness < ALIKE else None,
        likeness=likeness,
        newest_ns=frame.captured_ns,
        changed_ns=state.changed_ns if same else frame.captured_ns,
        equal=state.equal + 1 if same else 1,
        digest=digest,
        sequence=frame.sequence,
    )


def gone(state: HealthState, reason: str, last: Frame | None = None) -> HealthState:
    """The state after a read that failed. A camera that comes back begins anew with its next frame; where `last`, the
    last that it gave, is told, it must show the same place.
    """
    before = state.before if state.before is not None or last is None else thumbnail(last.image)
    return replace(state, lost=reason, equal=0, sequence=None, before=before)


def thumbnail(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Brightness (THUMBNAIL_PX, THUMBNAIL_PX) about its mean: where it is light and where dark, at any exposure."""
    rows, columns = (np.arange(THUMBNAIL_PX) * size // THUMBNAIL_PX for size in image.shape[:2])
    grey = image.mean(axis=2, dtype=np.float32)
    down = np.maximum(1, np.diff([*rows, image.shape[0]]))
    across = np.maximum(1, np.diff([*columns, image.shape[1]]))
    small = np.add.reduceat(np.add.reduceat(grey, rows, axis=0), columns, axis=1) / np.outer(down, across)
    centred: NDArray[np.float32] = (small - small.mean()).astype(np.float32)
    return centred


def likeness_of(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """The correlation of two thumbnails, from -1 to 1; pictures without contrast are alike."""
    flat = FLAT_GREY**2 * one.size
    return float(((one * other).sum() + flat) / np.sqrt(((one**2).sum() + flat) * ((other**2).sum() + flat)))


def fault_of(state: HealthState, limits: HealthLimits, fix: str, now_ns: int) -> str | None:
    """What is wrong with the camera at `now_ns`, in words with the fix; None when its newest frame may be used."""
    if state.lost is not None:
        return f"is unplugged ({state.lost}); {fix}"
    if now_ns - state.newest_ns > limits.stale_ns:
        return f"is stale (no new frame for over {limits.stale_ns / 1e6:.0f} ms); {fix}"
    if state.sequence is None:
        return f"has no frame yet; {fix}"
    if state.before is not None:
        return (
            f"has come back with another picture (its likeness to the last one is {state.likeness:.2f}, below "
            f"{ALIKE:g}); put it back where it was, or start the run again"
        )
    still_ns = state.newest_ns - state.changed_ns
    if limits.frozen_ns is not None and state.equal >= FROZEN_FRAMES and still_ns >= limits.frozen_ns:
        return (
            f"is frozen (new frames, but the same pixels for over {limits.frozen_ns / 1e6:.0f} ms); "
            "restart the camera, or allow a still picture with frozen_ms=0"
        )
    return None
