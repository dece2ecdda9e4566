"""One finding, and all of them as a table or as plain data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from edge import __version__

FORMAT = 2


class Status(str, Enum):
    """How a check went. Only FAIL fails the command."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, what was found, and what to do about it (empty where nothing need be)."""

    name: str
    status: Status
    found: str
    fix: str = ""
    figures: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def failed(name: str, error: Exception) -> Check:
        """From an error of ours, whose one line names the problem and then, behind a semicolon, the fix."""
        found, _, fix = str(error).partition("; ")
        return Check(name, Status.FAIL, found, fix or "see the message")

    @staticmethod
    def skipped(name: str, option: str) -> Check:
        """A check that needs an option that was not given."""
        return Check(name, Status.SKIPPED, f"give {option} to check it")


def judged(name: str, good: bool, found: str, fix: str, bad: Status = Status.WARN, **figures: Any) -> Check:
    """OK where `good`, else `bad` with the fix."""
    return Check(name, Status.OK if good else bad, found, "" if good else fix, figures)


def line(check: Check) -> str:
    """A row for a person, and the fix on a second one."""
    fix = f"\n{'':<8} {'':<16} fix: {check.fix}" if check.fix else ""
    return f"{check.status.value:<8} {check.name:<16} {check.found}{fix}"


def passed(checks: Iterable[Check]) -> bool:
    """Whether no check failed."""
    return all(check.status is not Status.FAIL for check in checks)


def document(checks: list[Check]) -> dict[str, Any]:
    """All findings as plain data."""
    return {
        "format": FORMAT,
        "created_by": f"vla-edge {__version__}",
        "passed": passed(checks),
        "checks": [
            {
                "name": check.name,
                "status": check.status.value.lower(),
                "found": check.found,
                "fix": check.fix,
                "figures": check.figures,
            }
            for check in checks
        ],
    }
