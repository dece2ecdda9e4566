"""PROTOCOL.md, the C header and the code say the same: constants from one place, and the profile hash by its recipe."""

from __future__ import annotations

import re
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
import tomllib

from edge.arms import available_arms, load_arm
from edge.arms.reading import PROFILE_FOLDER
from edge.run.controller import HEARTBEAT_NS
from firmware_bridge import constants

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
import generate

NAMES = list(generate.described_constants())


def rows_of(title: str) -> list[list[str]]:
    """The rows of one table of PROTOCOL.md."""
    text = generate.PROTOCOL.read_text().split(f"#### {title}\n")[1].split("\n####")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip(" `") for cell in row] for row in rows[2:]]


def packed(document: dict[str, Any], part: str, form: str) -> bytes:
    """One part of a profile's TOML document, as the table of PROTOCOL.md says."""
    table, _, key = part.rpartition(".")
    if form.startswith("doubles"):
        values = document.get(table, {}).get(key, []) if "nothing without" in form else document[table][key]
        return struct.pack(f"<{len(values)}d", *values)
    if form == "how many, one byte":
        return bytes([len(document[part])])
    if form == "ASCII, and a zero byte":
        return document[part].encode("ascii") + b"\0"
    assert form == "ASCII, a comma between two; nothing when all are rad"
    units = document.get(part, [])
    return ",".join(units).encode("ascii") if set(units) - {"rad"} else b""


def document_of(arm: str) -> dict[str, Any]:
    """A profile's TOML document; of an arm that is made of others, theirs with the rows one behind the other."""
    document = tomllib.loads((PROFILE_FOLDER / f"{arm}.toml").read_text())
    parts = [document_of(part) for part in document.get("arms", {}).values()]
    for part in parts:
        for name, value in part.items():
            if isinstance(value, list):
                document[name] = document.get(name, []) + value
            elif isinstance(value, dict):
                table = document.setdefault(name, {})
                table |= {key: table.get(key, []) + row for key, row in value.items() if isinstance(row, list)}
    return document


@pytest.mark.parametrize("arm", available_arms())
def test_the_recipe_of_the_text_gives_the_codes_profile_hash(arm: str) -> None:
    document = document_of(arm)
    recipe = rows_of("Profile hash")
    hash32 = zlib.crc32(b"".join(packed(document, part, form) for part, form in recipe))
    assert hash32 == load_arm(arm).hash32
    assert dict(rows_of("Profile hashes of this version"))[arm] == f"0x{hash32:08x}"
    compiled = re.search(
        rf'"{arm}",\s+\.joints = \d+u,\s+\.hash = (0x\w+)u', (generate.CORE / "profiles.c").read_text()
    )
    assert compiled is not None and int(compiled[1], 16) == hash32


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_constant_makes_what_is_generated_stale(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    header, protocol = generate.wire_header(), generate.protocol_text()
    assert protocol == generate.PROTOCOL.read_text()
    monkeypatch.setattr(constants, name, 2 * getattr(constants, name))
    assert generate.protocol_text() != protocol
    assert (generate.wire_header() == header) is name.startswith("HOST_")


def test_a_value_changed_in_the_text_is_put_right() -> None:
    text = "not before `MIN_LEAD_US` (25 ms), and not after `MAX_START_US` ()"
    assert generate.with_values(text) == "not before `MIN_LEAD_US` (20 ms), and not after `MAX_START_US` (10 s)"


def test_the_firmware_takes_every_constant_from_the_generated_header() -> None:
    sources = [path.read_text() for path in generate.CORE.glob("*.[ch]") if path.name != "wire_messages.h"]
    defined = {name for text in sources for name in re.findall(r"^#define (?:VE_)?(\w+) ", text, re.M)}
    assert not defined & {*NAMES, "MICRO", "MILLI"}
    unused = [name for name in NAMES if not name.startswith("HOST_") and not any(f"VE_{name}" in t for t in sources)]
    assert unused == []


def test_control_sends_heartbeats_as_often_as_the_protocol_demands() -> None:
    assert HEARTBEAT_NS <= 1000 * constants.HOST_HEARTBEAT_US < 1000 * constants.HEARTBEAT_LIMIT_US
