"""The job that trains the lifting policy, as `make checkpoint-lift` starts it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.conftest import ROOT


def test_recorders_take_the_cores_whatever_openmp_is_told(tmp_path: Path) -> None:
    """The Makefile sets OMP_NUM_THREADS, and nproc heeds it: on 16 cores two recorders were started instead of 14.

    In place of Python stands a program that does nothing and succeeds.
    """
    nproc = tmp_path / "nproc"
    nproc.write_text("#!/bin/sh\necho ${OMP_NUM_THREADS:-16}\n")  # as the one of GNU coreutils on 16 cores
    nproc.chmod(0o755)
    said = subprocess.run(
        ["sh", "lab/lift/job.sh", "4", str(tmp_path / "out")],
        cwd=ROOT,
        env={"PATH": f"{tmp_path}:/usr/bin:/bin", "PYTHON": "true", "OMP_NUM_THREADS": "2", "SHARDS": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == 0, said.stderr
    assert "lift: 14 recorders" in said.stdout
