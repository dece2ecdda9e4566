"""`--robot FILE.toml`: the options of a command in a file, by their long names; what the command line says comes after.

Paths in it are relative to the file, so that a robot is one folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edge.errors import InputError
from firmware_bridge.reading import MOST_TOML_BYTES, ReadError, one_line, parse_toml, read_bytes, shown

NOT_IN_A_FILE = ("help", "version", "robot", "replay", "recompute", "to-home", "yes")
"""What is decided anew each time."""


def add_robot_file(add: Any) -> None:
    add("--robot", type=Path, metavar="FILE.toml", help="read options from a file, by their long names")


def read_options(root: argparse.ArgumentParser, argv: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command, those of its `--robot` file before them. Raises `InputError`."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_robot_file(first.add_argument)
    file = first.parse_known_args(argv)[0].robot
    return root.parse_args([*(_of_file(root, file) if file else ()), *argv])


def _of_file(root: argparse.ArgumentParser, file: Path) -> list[str]:
    try:
        plain = parse_toml(read_bytes(file, MOST_TOML_BYTES))
    except ReadError as error:
        raise InputError(one_line(f"--robot {file}: {error}")) from None
    known = {
        option.removeprefix("--"): action
        for action in root._actions
        for option in action.option_strings
        if option.startswith("--") and option.removeprefix("--") not in NOT_IN_A_FILE
    }
    found: list[str] = []
    for name, value in plain.items():
        if name not in known:
            raise InputError(one_line(f"--robot {file}: '{name}' is no option of a file; known: {', '.join(known)}"))
        found += _arguments(file, name, known[name], value)
    return found


def _arguments(file: Path, name: str, action: argparse.Action, value: Any) -> list[str]:
    """The option as the command line has it; a list gives it several times. Raises `InputError`."""
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise InputError(f"--robot {file}: {name} is {shown(value)}; write true or false")
        return [f"--{name}"] if value else []
    several = isinstance(value, list) and isinstance(action, argparse._AppendAction)
    return [f"--{name}={_text(file, name, action, one)}" for one in (value if several else [value])]


def _text(file: Path, name: str, action: argparse.Action, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise InputError(f"--robot {file}: {name} is {shown(value)}; write a text or a number")
    text = str(file.parent / str(value)) if action.type is Path else str(value)
    try:
        if callable(action.type):
            action.type(text)
        if action.choices is not None and text not in action.choices:
            raise ValueError(f"choose one of {', '.join(map(str, action.choices))}")
    except (ValueError, argparse.ArgumentTypeError) as error:
        raise InputError(one_line(f"--robot {file}: {name} is {shown(value)}: {error}")) from None
    return text
