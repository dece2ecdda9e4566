"""Every console script of pyproject.toml: `--help` with an example, `--version`, one line and exit 2 on bad input."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tomllib

from firmware_bridge import __version__

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS: dict[str, str] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
PARTS = {"edge-train": ("point", "prior", "vla", "distil"), "edge-bench": ("latency", "loop", "link", "report")}
"""Scripts with commands of their own below them; each of those has a `--help` too."""
HELPS = [(name, part) for name in SCRIPTS for part in ("", *PARTS.get(name, ()))]


def start(monkeypatch: pytest.MonkeyPatch, name: str, *arguments: str) -> int:
    """Runs a script's entry point, as the installed script would. Returns its exit code."""
    module, _, function = SCRIPTS[name].partition(":")
    main: Callable[[], int] = getattr(importlib.import_module(module), function)
    monkeypatch.setattr(sys, "argv", [name, *arguments])
    try:
        return main()
    except SystemExit as leaving:
        return int(leaving.code or 0)


@pytest.mark.parametrize(("name", "part"), HELPS)
def test_help_has_an_example(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str, part: str
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    assert start(monkeypatch, name, *filter(None, (part, "--help"))) == 0
    usage, _, examples = capsys.readouterr().out.partition("\nExample")
    assert usage.startswith(f"usage: {name}")
    assert any(line.strip().startswith(f"{name} {part}".strip()) for line in examples.splitlines())


@pytest.mark.parametrize("name", SCRIPTS)
def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert start(monkeypatch, name, "--version") == 0
    assert capsys.readouterr().out == f"{name} {__version__}\n"


@pytest.mark.parametrize("name", SCRIPTS)
def test_bad_input_is_one_line_and_exit_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert start(monkeypatch, name, "--no-such-option") == 2
    errors = [line for line in capsys.readouterr().err.splitlines() if f"{name}: error:" in line]
    assert len(errors) == 1
