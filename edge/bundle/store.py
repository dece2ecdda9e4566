"""A folder of bundles by version, of which one is in use: `current`, a link that is changed as a whole.

A run follows the link once, when it begins; what is put in use later is for the next run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edge.bundle.files import replacing
from edge.bundle.loading import BundleError, load_bundle, read_manifest
from edge.bundle.manifest import MANIFEST, Manifest
from firmware_bridge.reading import ReadError, one_line, read_bytes

CURRENT, HISTORY = "current", "history"
MOST_HISTORY = 100
MOST_BYTES = 1 << 16


@dataclass(frozen=True)
class Stored:
    """A bundle of a store; `problem` says why its manifest cannot be read."""

    name: str
    in_use: bool
    manifest: Manifest | None
    problem: str = ""


class BundleStore:
    """The bundles in `folder`, each in a folder of its own name. Raises `BundleError`."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise BundleError(f"{folder}: there is no such folder; make it, and copy bundles into it, each by its name")
        self.folder = folder

    def names(self) -> list[str]:
        """Of all bundles, sorted."""
        found = self.folder.iterdir()
        return sorted(one.name for one in found if not one.is_symlink() and (one / MANIFEST).is_file())

    def in_use(self) -> str | None:
        """The name of the one in use."""
        link = self.folder / CURRENT
        return link.readlink().name if link.is_symlink() else None

    def all(self) -> list[Stored]:
        current, found = self.in_use(), []
        for name in self.names():
            try:
                found.append(Stored(name, name == current, read_manifest(self.folder / name / MANIFEST)))
            except BundleError as error:
                found.append(Stored(name, name == current, None, str(error)))
        return found

    def use(self, name: str, trust: Path | None = None) -> None:
        """Puts a bundle in use, after its files have been compared with their hashes, and its signature with a key."""
        if name not in self.names():
            raise BundleError(f"{self.folder}: no bundle '{name}'; there are {', '.join(self.names()) or 'none'}")
        self._switch([*self._history(), name], trust)

    def rollback(self, trust: Path | None = None) -> str:
        """Puts the one that was in use before in use again; returns its name."""
        history, current = self._history(), self.in_use()
        while history and (history[-1] == current or history[-1] not in self.names()):
            history.pop()
        if not history:
            raise BundleError(f"{self.folder}: nothing was in use before that is still there")
        self._switch(history, trust)
        return history[-1]

    def _switch(self, history: list[str], trust: Path | None) -> None:
        """To the newest of the history."""
        load_bundle(self.folder / history[-1], trust=trust)
        link = self.folder / CURRENT
        if link.exists() and not link.is_symlink():
            raise BundleError(f"{link}: is no link; move it away")
        with replacing(link) as partial:
            partial.unlink(missing_ok=True)
            partial.symlink_to(history[-1])
        with replacing(self.folder / HISTORY) as partial:
            partial.write_text("".join(f"{name}\n" for name in history[-MOST_HISTORY:]))

    def _history(self) -> list[str]:
        """What was put in use, the newest last."""
        file = self.folder / HISTORY
        if not file.exists():
            return []
        try:
            return read_bytes(file, MOST_BYTES).decode().split("\n")[:-1]
        except (ReadError, UnicodeDecodeError) as error:
            raise BundleError(one_line(f"{file}: {error}; remove it")) from None
