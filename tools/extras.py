"""Which extras of the robot's side have wheels for aarch64, on two Pythons: a table; nothing is installed.

Exits with 1 where the README's table says something else. pip resolves each as it would on that machine, from wheels
alone. What it cannot know of another machine are markers of packages that others depend on; those of our own are
evaluated for it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.12")
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")
WORKSTATION = ("dev", "export")
"""Extras of another machine."""
README = ROOT / "README.md"
NAME = "vla-edge"
TIMEOUT_S = 300


def requirements(project: dict[str, object], extra: str, python: str) -> list[str]:
    """What the package needs on aarch64 with that Python, with an extra, or none for ""; ours are followed."""
    base: list[str] = project["dependencies"]  # type: ignore[assignment]
    extras: dict[str, list[str]] = project["optional-dependencies"]  # type: ignore[assignment]
    environment = {"platform_machine": "aarch64", "python_version": python, "python_full_version": f"{python}.0"}
    found = []
    for text in base + extras.get(extra, []):
        one = Requirement(text)
        if one.marker is not None and not one.marker.evaluate(environment):
            continue
        if one.name == NAME:
            for inner in sorted(one.extras):
                found += requirements({**project, "dependencies": []}, inner, python)
        else:
            one.marker = None
            found.append(str(one))
    return found


def resolve(wanted: list[str], python: str) -> str | None:
    """Why pip cannot resolve them for aarch64; None when it can."""
    version = python.replace(".", "")
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--disable-pip-version-check"]
        line += ["--only-binary=:all:", "--implementation=cp", f"--python-version={python}", f"--target={folder}"]
        line += [f"--platform={platform}" for platform in PLATFORMS]
        line += [f"--abi={abi}" for abi in (f"cp{version}", "abi3", "none")]
        try:
            done = subprocess.run([*line, *wanted], capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"not resolved within {TIMEOUT_S} s"
    if done.returncode == 0:
        return None
    errors = [row for row in done.stderr.splitlines() if row.startswith("ERROR: ")]
    return errors[-1].removeprefix("ERROR: ") if errors else "pip failed"


def said(readme: str) -> dict[str, tuple[bool, ...]]:
    """By extra, "" for none, whether the README's table has wheels for it on each of `PYTHONS`."""
    table = readme.partition("## Extras")[2].partition("\n## ")[0]
    rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in table.splitlines() if row.startswith("|")]
    return {
        "" if extra == "none" else extra.strip("`"): tuple(cell.startswith("yes") for cell in cells)
        for extra, _, *cells in rows[2:]
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="tools/extras.py", description=__doc__)
    parser.add_argument("extras", nargs="*", help="these alone (default: all of the robot's side)")
    args = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    every = ["", *(name for name in project["optional-dependencies"] if name not in WORKSTATION)]
    print(f"| extra | {' | '.join(f'Python {python}' for python in PYTHONS)} |")
    print(f"|---|{'---|' * len(PYTHONS)}")
    promised, differing = said(README.read_text()), []
    for extra in args.extras or every:
        cells = []
        for python in PYTHONS:
            wanted = requirements(project, extra, python)
            if extra and wanted == requirements(project, "", python):
                problem: str | None = "nothing, by its own marker"
            else:
                problem = resolve(wanted, python)
            cells.append(problem or "wheels")
        print(f"| {f'`{extra}`' if extra else 'none'} | {' | '.join(cells)} |", flush=True)
        if promised.get(extra) != tuple(cell == "wheels" for cell in cells):
            differing.append(extra or "none")
    if differing:
        print(f"README.md says something else of {', '.join(differing)}", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
