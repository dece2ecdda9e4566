"""What a command is going to write, checked before anything is opened: nothing that was there before is lost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

from edge.errors import InputError
from edge.run.report import check_output

MANIFEST = "manifest.json"
HEAD_BYTES = 4096
PNG, JSON, HTML = b"\x89PNG", b"{", b"<!doctype html>"
OURS = "vla-edge"
Kind = Literal["report", "picture", "page", "calibration", "recording"]
"""Of an output: what an earlier run has written there may be replaced, but a recording is kept."""
OVERWRITE = "let --trace take the place of a file that is there; never of an input, of a bundle's file or of a device"


def check_outputs(
    outputs: Mapping[str, tuple[Path, Kind]], inputs: Iterable[Path] = (), overwrite: bool | None = False
) -> None:
    """Whether all outputs, by the option that names them, can be written without a loss.

    Never written are the files and folders in `inputs`, whatever lies in a bundle's folder, and two outputs in one
    place. What is there already may be replaced where `overwrite` says so, and where it is the report or the picture of
    an earlier run, or an earlier calibration. None is for a command that has no such option. Raises `InputError`.
    """
    taken: dict[Path, str] = {}
    read = [path.resolve() for path in inputs if path.exists()]
    for option, (path, kind) in outputs.items():
        check_output(option, path)
        place = path.resolve()
        if place in taken:
            raise InputError(f"{option} {path}: {taken[place]} is the same file; name another")
        taken[place] = option
        if not path.exists():
            continue
        if any(place == one or one in place.parents or (one.is_file() and path.samefile(one)) for one in read):
            raise InputError(f"{option} {path}: that file is an input of this command; name another")
        if (place.parent / MANIFEST).exists():
            raise InputError(f"{option} {path}: that file belongs to a bundle; name another")
        if not overwrite and path.stat().st_size > 0 and not _replaceable(path, kind):
            what = "a recording" if kind == "recording" else f"a file that is no {kind} of a run"
            fix = "name another" if overwrite is None else "name another, or add --overwrite"
            raise InputError(f"{option} {path}: {what} is there already; {fix}")


def _replaceable(path: Path, kind: Kind) -> bool:
    """Whether a file is what the command itself has written there before, and writes again every time."""
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if kind == "picture":
        return head.startswith(PNG) and OURS.encode() in head
    if kind == "page":
        return head.startswith(HTML) and OURS.encode() in head
    if kind == "recording" or not head.startswith(JSON):
        return False
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return False
    if kind == "calibration":
        return isinstance(found, dict) and found.keys() == {"format", "arm", "joints"}
    return isinstance(found, dict) and OURS in str(found.get("created_by")) and ("ended" in found or "checks" in found)
