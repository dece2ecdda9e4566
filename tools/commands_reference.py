"""Writes docs/reference/commands.md from the parsers of the console scripts; `--check` fails when it is not current."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.cli import COMMANDS as BENCHMARKS
from bench.cli import parser as benchmark_parser

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reference" / "commands.md"
PARSERS = {
    "edge-export": "export.commands.export",
    "edge-run": "edge.cli.run_options",
    "edge-doctor": "edge.cli.doctor",
    "edge-build": "edge.cli.build",
    "edge-calibrate": "edge.cli.calibrate",
    "edge-adapter": "edge.cli.adapter",
    "edge-serve": "edge.cli.serve",
    "edge-ros2": "edge.cli.ros2",
    "edge-record": "edge.cli.record",
    "edge-evaluate": "edge.cli.evaluate",
    "edge-bundle": "edge.cli.bundles",
    "bridge-sim": "edge.cli.bridge_sim",
    "can-sim": "edge.cli.can_sim",
    "servo-sim": "firmware_bridge.adapters.feetech.servo_sim",
    "fci-sim": "firmware_bridge.adapters.fci_sim.server",
    "edge-train": "export.commands.train_options",
    "edge-bench": "bench.cli",
}
"""Each console script and the module whose `parser()` makes its parser, in the order of the page."""
HEAD = """# Commands

Generated from the parsers by `tools/commands_reference.py`; `make generate` writes it. Every command also has `--help`
and `--version`. Exit codes are 0 for done, 1 for a safety stop or a failed verification, 2 for bad input, where nothing
has moved; what differs stands with the command.
"""


def page() -> str:
    os.environ["COLUMNS"] = "102"  # argparse and our own texts are filled to the terminal's width
    blocks = [HEAD, "\n".join(f"- [{name}](#{name})" for name in PARSERS)]
    for script in PARSERS:
        blocks += _command(parser_of(script, []), "##")
    for name in BENCHMARKS:
        blocks += _command(_parts(parser_of("edge-bench", [name]))[name], "###")
    return "\n\n".join(block.strip() for block in blocks) + "\n"


def parser_of(script: str, arguments: list[str]) -> argparse.ArgumentParser:
    """The parser that reads these arguments of a console script."""
    if script == "edge-bench":
        return benchmark_parser(arguments[0] if arguments and arguments[0] in BENCHMARKS else "")
    found: argparse.ArgumentParser = importlib.import_module(PARSERS[script]).parser()
    return found


def _command(parser: argparse.ArgumentParser, heading: str) -> Iterator[str]:
    yield f"{heading} {parser.prog}"
    yield parser.description or ""
    formatter = argparse.HelpFormatter(parser.prog)
    for group in parser._action_groups:
        rows = [_row(action, formatter) for action in group._group_actions if _is_shown(action)]
        if rows:
            named = group.title not in ("options", "optional arguments", "positional arguments")
            yield "\n".join(
                [*([f"**{group.title}**", ""] if named else []), "| option | meaning |", "|---|---|", *rows]
            )
    if parser.epilog:
        yield f"```text\n{parser.epilog.strip()}\n```"
    if "edge-bench" not in parser.prog:
        for part in _parts(parser).values():
            yield from _command(part, heading + "#")


def _parts(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """The parsers of a command's sub-commands."""
    found = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(found[0].choices) if found else {}


def _is_shown(action: argparse.Action) -> bool:
    return action.dest not in ("help", "version") and not isinstance(action, argparse._SubParsersAction)


def _row(action: argparse.Action, formatter: argparse.HelpFormatter) -> str:
    meaning = formatter._expand_help(action) if action.help else ""
    required = ", required" if action.required and action.option_strings else ""
    cells = (f"`{_signature(action)}`{required}", meaning)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _signature(action: argparse.Action) -> str:
    value = action.metavar or (action.choices and "|".join(map(str, action.choices))) or action.dest.upper()
    value = {0: "", "?": f"[{value}]", "+": f"{value} [...]", "*": f"[{value} ...]"}.get(action.nargs, value)
    return " ".join(filter(None, (", ".join(action.option_strings), str(value))))


def main(argv: list[str] | None = None) -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true", help="write nothing; exit 1 when the page is not current")
    check = arguments.parse_args(argv).check
    text = page()
    if not check:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text:
        print(f"{PAGE.relative_to(ROOT)} is not current: run make generate", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
