"""Checks the firmware core against MISRA C:2012, with cppcheck's add-on.

Every rule holds, save those listed here with the reason. The add-on's rule texts are MISRA's own and not shipped; it
names rules by number.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from firmware_bridge.native import FIRMWARE

CORE = FIRMWARE / "core"
DEVIATIONS = {
    "2.5": "advisory: the generated header names every field and code of the wire, used here or not",
    "8.9": "advisory: the table of handlers stands behind the handlers, not inside the function that walks it",
    "8.11": "advisory: the number of profiles is generated beside them",
    "9.3": "the add-on takes structs within structs, and structs initialised from another, for arrays half initialised",
    "15.5": "advisory: guards that return at once read better than one exit behind nested conditions",
}
SEVERITIES = "warning,style,performance,portability"


@dataclass(frozen=True)
class Finding:
    """One report of cppcheck; `rule` is a MISRA rule's number or cppcheck's own name."""

    file: str
    line: int
    rule: str


def check(files: list[Path], include: Path) -> list[Finding]:
    """Everything that cppcheck and its MISRA add-on report. Exits with what is missing."""
    if shutil.which("cppcheck") is None:
        raise SystemExit("misra: needs cppcheck: sudo apt-get install cppcheck")
    command = ["cppcheck", "--addon=misra", "--std=c99", f"--enable={SEVERITIES}", "--quiet", "--inline-suppr"]
    command += ["--suppress=missingIncludeSystem", "--template={file}|{line}|{id}", f"-I{include}", *map(str, files)]
    result = subprocess.run(command, capture_output=True, text=True)
    found = re.findall(r"^(.+)\|(\d+)\|(\S+)$", result.stderr, re.MULTILINE)
    unread = [line for line in result.stderr.splitlines() if line and not re.match(r".+\|\d+\|\S+$", line)]
    if result.returncode != 0 or unread:
        raise SystemExit(f"misra: cppcheck failed: {(unread or ['no message'])[0]}")
    return sorted(
        {Finding(Path(file).name, int(line), rule.removeprefix("misra-c2012-")) for file, line, rule in found},
        key=lambda finding: (finding.file, finding.line, finding.rule),
    )


def main() -> int:
    argparse.ArgumentParser(description=__doc__).parse_args()
    findings = check(sorted(CORE.glob("*.c")), CORE)
    bad = [finding for finding in findings if finding.rule not in DEVIATIONS]
    for finding in bad:
        print(f"{finding.file}:{finding.line}: {finding.rule}")
    unused = sorted(set(DEVIATIONS) - {finding.rule for finding in findings})
    if unused:
        print(f"no longer needed as a deviation: {', '.join(unused)}")
    excused = {rule: sum(finding.rule == rule for finding in findings) for rule in DEVIATIONS}
    print("MISRA C:2012: " + ", ".join(f"rule {rule} {count} x" for rule, count in excused.items()) + " by deviation")
    return 1 if bad or unused else 0


if __name__ == "__main__":
    sys.exit(main())
