"""Why, how often and how long the policy was paused: its cameras were not to be trusted."""

from __future__ import annotations

from dataclasses import dataclass, field

MOST_REASONS, OTHER = 100, "other reasons"
"""A reason may hold a figure; the room for them does not grow with the run."""


@dataclass
class PauseLog:
    """Pauses of one run. A pause begins with the first answer that is one and ends with the next chunk.

    answers  answers that were a pause instead of a chunk
    reasons  pauses by the reason each began with
    reason   of the pause under way, in its newest words; None while the policy goes on
    """

    answers: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    reason: str | None = None
    began_ns: int = 0
    ended_us: int = 0

    def pause(self, reason: str, now_ns: int) -> None:
        """Takes an answer that is a pause."""
        self.answers += 1
        if self.reason is None:
            self.began_ns = now_ns
            known = reason if reason in self.reasons or len(self.reasons) < MOST_REASONS else OTHER
            self.reasons[known] = self.reasons.get(known, 0) + 1
        self.reason = reason

    def resume(self, now_ns: int) -> None:
        """Takes an answer that is a chunk."""
        if self.reason is not None:
            self.ended_us += (now_ns - self.began_ns) // 1000
        self.reason = None

    def lasted_ns(self, now_ns: int) -> int:
        """How long the pause under way has lasted; 0 when there is none."""
        return now_ns - self.began_ns if self.reason is not None else 0
