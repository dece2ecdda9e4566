"""Whether a camera may be trusted: decided from what arrived and when, with no clock of its own."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace

import numpy as np

from edge.cameras.base import Frame, SourceTraits
from edge.registry import option

MIN_STALE_NS = 250_000_000
STALE_PERIODS = 3
MIN_FROZEN_NS = 500_000_000
FROZEN_PERIODS = 10
FROZEN_FRAMES = 3
"""Fewer equal frames than this say nothing: a drawn picture may come round to the same pixels."""


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
    """

    newest_ns: int
    changed_ns: int
    equal: int = 0
    digest: int = 0
    sequence: int | None = None
    lost: str | None = None

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
    return HealthState(
        newest_ns=frame.captured_ns,
        changed_ns=state.changed_ns if same else frame.captured_ns,
        equal=state.equal + 1 if same else 1,
        digest=digest,
        sequence=frame.sequence,
    )


def gone(state: HealthState, reason: str) -> HealthState:
    """The state after a read that failed. A camera that comes back begins anew with its next frame."""
    return replace(state, lost=reason, equal=0, sequence=None)


def fault_of(state: HealthState, limits: HealthLimits, fix: str, now_ns: int) -> str | None:
    """What is wrong with the camera at `now_ns`, in words with the fix; None when its newest frame may be used."""
    if state.lost is not None:
        return f"is unplugged ({state.lost}); {fix}"
    if now_ns - state.newest_ns > limits.stale_ns:
        return f"is stale (no new frame for over {limits.stale_ns / 1e6:.0f} ms); {fix}"
    if state.sequence is None:
        return f"has no frame yet; {fix}"
    still_ns = state.newest_ns - state.changed_ns
    if limits.frozen_ns is not None and state.equal >= FROZEN_FRAMES and still_ns >= limits.frozen_ns:
        return (
            f"is frozen (new frames, but the same pixels for over {limits.frozen_ns / 1e6:.0f} ms); "
            "restart the camera, or allow a still picture with frozen_ms=0"
        )
    return None
