"""The JSON of a measurement: what was run, on what machine, every figure with its raw samples."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from bench.machine import fingerprint
from edge.bundle import MANIFEST, Bundle, sha256
from edge.bundle.files import replacing
from edge.errors import InputError

FORMAT = 1
"""Of the whole document; anything that reads one refuses another number."""


@dataclass
class Recording:
    """A measurement while it is made. `not_run` says what was asked for and left out, and why."""

    benchmark: str
    settings: dict[str, Any]
    quick: bool
    machine: dict[str, Any] = field(default_factory=fingerprint)
    started: str = field(default_factory=lambda: datetime.now(timezone.utc).isoformat(timespec="seconds"))
    bundles: list[dict[str, Any]] = field(default_factory=list)
    not_run: list[dict[str, str]] = field(default_factory=list)
    body: dict[str, Any] = field(default_factory=dict)
    _began_s: float = field(default_factory=time.monotonic)

    def leave_out(self, what: str, why: str) -> None:
        """Notes, and tells the person in front of it, that something is not measured."""
        self.not_run.append({"what": what, "why": why})
        notify(f"not run: {what}: {why}")

    def used(self, label: str, bundle: Bundle) -> None:
        """Notes which bundle the figures under `label` are of."""
        self.bundles.append(
            {
                "label": label,
                "manifest_sha256": sha256(bundle.path / MANIFEST),
                "checkpoint_sha256": bundle.manifest.checkpoint_sha256,
                "precision": bundle.manifest.precision,
            }
        )

    def to_plain(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "benchmark": self.benchmark,
            "command": ["edge-bench", *(word.removeprefix(f"{Path.cwd()}/") for word in sys.argv[1:])],
            "started": self.started,
            "seconds": round(time.monotonic() - self._began_s, 1),
            "quick": self.quick,
            "settings": self.settings,
            "machine": self.machine,
            "bundles": self.bundles,
            "not_run": self.not_run,
            **self.body,
        }


def notify(text: str) -> None:
    """Progress goes to stderr, so that stdout holds nothing but results."""
    print(f"edge-bench: {text}", file=sys.stderr, flush=True)


def write_document(path: Path, document: dict[str, Any]) -> None:
    """Writes whole or not at all. Raises `InputError` where it may not be written."""
    try:
        with replacing(path) as partial:
            partial.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); name another file") from None


def read_document(path: Path) -> dict[str, Any]:
    """Reads what `write_document` wrote. Raises `InputError`."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); name a file that edge-bench wrote") from None
    except ValueError:
        raise InputError(f"{path}: no JSON; name a file that edge-bench wrote with --json") from None
    if not isinstance(document, dict) or "benchmark" not in document or "machine" not in document:
        raise InputError(f"{path}: not a measurement of edge-bench; name a file that it wrote with --json")
    if document.get("format") != FORMAT:
        raise InputError(f"{path}: format {document.get('format')!r}, this version reads {FORMAT}; measure again")
    return document
