"""Turns measurements into one HTML page that works offline, and into Markdown tables.

--markdown writes the tables of each benchmark into a page of the documentation, between the marks
`<!-- edge-bench NAME -->` and `<!-- end NAME -->`; everything else in that page stays as it is.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.document import notify, read_document
from bench.sections import TITLES, lines_of, summary_line, title_of
from bench.tables import fill_marks
from edge.errors import InputError


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, nargs="+", metavar="FILE.json", help="written by the others with --json")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE.html", help="the page")
    parser.add_argument("--markdown", type=Path, metavar="FILE.md", help="write the tables between its marks")


def run(args: argparse.Namespace) -> int:
    order = list(TITLES)
    documents = sorted((read_document(path) for path in args.file), key=lambda one: order.index(known(one)))
    if args.out:
        from bench.page import page  # needs matplotlib, and the tables do not

        try:
            args.out.write_text(page(documents), encoding="utf-8")
        except OSError as error:
            raise InputError(f"{args.out}: cannot be written ({error.strerror}); name another file") from None
        notify(f"wrote {args.out}")
    if args.markdown:
        write_markdown(args.markdown, documents)
        notify(f"wrote the tables of {args.markdown}")
    if not (args.out or args.markdown):
        for document in documents:
            print("\n".join([f"## {title_of(document)}", "", summary_line(document), "", *lines_of(document), ""]))
    return 0


def known(document: dict[str, Any]) -> str:
    """The benchmark of a document. Raises `InputError` for one of another version."""
    name = str(document["benchmark"])
    if name not in TITLES:
        raise InputError(f"this version reports no benchmark '{name}'; it knows {', '.join(TITLES)}")
    return name


def write_markdown(path: Path, documents: list[dict[str, Any]]) -> None:
    """Puts every benchmark's tables between its marks. Raises `InputError` where a mark is missing."""
    parts: dict[str, list[str]] = defaultdict(list)
    for document in documents:
        parts[document["benchmark"]] += [*heading(document), *lines_of(document), ""]
    fill_marks(path, parts)


def heading(document: dict[str, Any]) -> list[str]:
    return [f"**{title_of(document)}.** {summary_line(document)}", ""]
