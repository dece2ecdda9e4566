"""Every page is reachable, and what it points at is there: relative links, paths of this repository, anchors."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
import tomllib

from tools import commands_reference

ROOT = Path(__file__).resolve().parents[1]
SHARED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
PAGES = [path for path in SHARED if path.endswith(".md") and (ROOT / path).is_file()]
SOURCES = [path for path in SHARED if path.endswith((".py", ".sh", ".toml", ".c", ".h")) or path == "Makefile"]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE_BLOCK = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
FOLDERS = "bench|checkpoints|docs|edge|examples|export|firmware_bridge|lab|tests|tools"
PATH = re.compile(rf"`((?:{FOLDERS})/[\w./-]*)`")
NAMED_TEST = re.compile(r"(test_\w+\.py)(?:::(test_\w+))?")
MODULE = re.compile(rf"python -m ((?:{FOLDERS})\.[\w.]+)")
TARGET = re.compile(r"(?:`|^|[A-Z]+=\S+ )make ([a-z][\w-]*)", re.MULTILINE)
PAGE_IN_SOURCE = re.compile(r"(?<![\w/])docs/[\w/-]+\.(?:md|png)")


def text_of(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def anchor(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    prose = CODE_BLOCK.sub("", page.read_text(encoding="utf-8"))
    return {anchor(line.lstrip("#")) for line in prose.splitlines() if line.startswith("#")}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_paths_resolve(page: str) -> None:
    prose = CODE_BLOCK.sub("", text_of(page))
    broken = []
    for link in LINK.findall(prose):
        if "://" in link or link.startswith("mailto:"):
            continue
        name, _, fragment = link.partition("#")
        target = (ROOT / page).parent / name if name else ROOT / page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    if page != "CHANGELOG.md":  # which names what has moved since
        broken += [path for path in PATH.findall(prose) if "NAME" not in path and not (ROOT / path).exists()]
    assert broken == []


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_tests_that_pages_name_exist(page: str) -> None:
    tests = {Path(path).name: path for path in SHARED if path.startswith("tests/")}
    missing = []
    for file, function in NAMED_TEST.findall(text_of(page)):
        if file not in tests or (function and f"def {function}" not in text_of(tests[file])):
            missing.append(f"{file}::{function}")
    assert missing == []


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ("CHANGELOG.md", "docs/reference/commands.md")])
def test_commands_that_pages_show_parse(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = "\n".join(CODE_BLOCK.findall(text_of(page))).replace("\\\n", " ")
    for line in blocks.splitlines():
        arguments = (
            shlex.split(line, comments=True) if line.startswith(("edge-", "bridge-sim", "servo-sim", "fci-sim")) else []
        )
        if (
            not arguments or arguments[0].endswith(":") or {"...", "STAGE", "--->"} & set(arguments)
        ):  # a message, a drawing
            continue
        arguments = arguments[: arguments.index("|")] if "|" in arguments else arguments
        try:
            commands_reference.parser_of(arguments[0], arguments[1:]).parse_args(arguments[1:])
        except SystemExit as leaving:
            assert leaving.code == 0, f"{line}: {capsys.readouterr().err}"


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_modules_and_targets_that_pages_name_exist(page: str) -> None:
    text = text_of(page)
    modules = [name.replace(".", "/") for name in MODULE.findall(text)]
    missing = [name for name in modules if not ((ROOT / f"{name}.py").is_file() or (ROOT / name).is_dir())]
    targets = set(re.findall(r"^([\w-]+):", text_of("Makefile"), re.MULTILINE))
    missing += [name for name in TARGET.findall(text) if name not in targets]
    assert missing == []


def test_every_page_is_linked_from_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in LINK.findall(index.read_text("utf-8"))}
    pages = {ROOT / page for page in PAGES if page.startswith("docs/")} - {index}
    assert sorted(str(page.relative_to(ROOT)) for page in pages - linked) == []


@pytest.mark.parametrize("path", [path for path in SOURCES if path != "tests/test_docs.py"])
def test_pages_that_sources_name_exist(path: str) -> None:
    named = set(PAGE_IN_SOURCE.findall((ROOT / path).read_text(encoding="utf-8", errors="replace")))
    assert [page for page in named if not (ROOT / page).is_file()] == []


def test_the_glossary_is_in_order() -> None:
    text = text_of("docs/glossary.md")
    for table in text.split("\n\n"):
        rows = [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:]
        assert rows == sorted(rows, key=str.lower)
        assert len(rows) == len(set(rows))


def test_the_reference_of_commands_is_current() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(commands_reference.PARSERS) == set(scripts)
    assert commands_reference.main(["--check"]) == 0, "run make generate"
