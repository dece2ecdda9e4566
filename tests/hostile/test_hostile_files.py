"""A few of the files of `make hostile-files`, in process and through the real commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
POLICY = ROOT / "tests/export/families/lerobot/act"


@pytest.mark.long
def test_whatever_stands_in_a_file_it_is_read_or_refused_in_one_line(bundle_path: Path) -> None:
    command = [sys.executable, "-m", "tests.hostile", "--inputs", "60", "--commands", "9"]
    result = subprocess.run(
        [*command, "--bundle", str(bundle_path), "--policy", str(POLICY)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    rows = re.findall(r"^(\w[\w ]+?) +60 +(\d+)% .* (\d+) 0$", result.stdout, re.MULTILINE)
    assert len(rows) == 9 and all(int(share) >= 30 for _, share, _ in rows)
