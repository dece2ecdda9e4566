"""Text that cannot be shown is lost, and nothing else: it never raises and never waits."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

import pytest

from firmware_bridge.printing import harmless, print_line

ROOT = Path(__file__).resolve().parents[2]
LEAVES = """
import os, sys
from firmware_bridge.printing import print_line
os.read(0, 1)
for _ in range(3):
    print_line("nobody reads this", sys.stdout)
    print_line("nor this", sys.stderr)
"""


def pipe(encoding: str = "utf-8") -> tuple[TextIO, TextIO]:
    reading, writing = os.pipe()
    return os.fdopen(reading, errors="replace"), os.fdopen(writing, "w", encoding=encoding)


def test_a_line_arrives() -> None:
    reader, writer = pipe()
    print_line("grün", writer)
    assert reader.readline() == "grün\n"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_any_text_has_a_form_in_any_encoding(encoding: str) -> None:
    reader, writer = pipe(encoding)
    print_line("Würfel \u2713 \udce4 \U0001f916", writer)
    assert reader.readline().startswith("W")


def test_a_reader_that_has_gone_costs_the_text_alone() -> None:
    reader, writer = pipe()
    reader.close()
    for _ in range(3):
        print_line("lost", writer)
    writer.close()


def test_a_reader_that_does_not_read_is_not_waited_for() -> None:
    reader, writer = pipe()
    began_s = time.monotonic()
    for _ in range(3000):
        print_line("x" * 100, writer)
    assert time.monotonic() - began_s < 5
    began_s = time.monotonic()
    print_line("and this", writer, wait_s=0.2)
    assert 0.1 < time.monotonic() - began_s < 5
    reader.close()


def test_streams_that_are_none() -> None:
    closed = io.StringIO()
    closed.close()
    print_line("lost", None)
    print_line("lost", closed)
    with Path("/dev/full").open("w") as full:
        print_line("lost", full)
        print_line("lost", full)


def test_the_process_ends_as_if_it_had_been_read() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", LEAVES],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdin and process.stdout and process.stderr
    process.stdout.close()
    process.stderr.close()
    process.stdin.write(b"x")
    process.stdin.close()
    assert process.wait(30) == 0


def test_what_shows_the_text_of_a_drive_cannot_stop_it() -> None:
    def broken(text: str) -> None:
        raise BrokenPipeError(text)

    harmless(broken)("the servos hold their last goals")
