"""The wheel in an empty Python 3.10, on a path without a compiler, run by a user without a home.

Run by `make wheel-check`. Root gives itself up for user 65534; anybody else stays who they are.
"""

from __future__ import annotations

import json
import os
import platform
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from firmware_bridge import __version__
from tests.servo_bench import OFFSETS, SO101, calibration, servos_at
from tools.wheels import build_wheel, run_build

pytestmark = [pytest.mark.slow, pytest.mark.real_time]

ROOT = Path(__file__).resolve().parents[1]
NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs")
START_S = 20.0


def prefix_of(version: str) -> Path:
    """Where such a Python is installed."""
    for python in (f"python{version}", *Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")):
        command = [python, "-c", "import sys; print(sys.base_prefix)"]
        if shutil.which(python) and not (found := subprocess.run(command, capture_output=True, text=True)).returncode:
            return Path(found.stdout.strip())
    pytest.skip(f"there is no python{version} on the path or in ~/.pyenv")


class Robot:
    """A folder with an interpreter, a virtual environment and what a run is given, readable to everybody.

    `work` is the one folder in it that everybody may write.
    """

    def __init__(self, folder: Path, version: str, extra: str, bundle: Path) -> None:
        self.folder, self.work = folder, folder / "work"
        folder.chmod(0o755)
        python = folder / "python"
        ignored = shutil.ignore_patterns("test", "site-packages")
        shutil.copytree(prefix_of(version), python, symlinks=True, ignore=ignored)
        self.environment = {
            "HOME": "/nonexistent",
            "LD_LIBRARY_PATH": str(python / "lib"),
            "PATH": str(folder / "venv" / "bin"),
        }
        subprocess.run(
            [python / f"bin/python{version}", "-m", "venv", folder / "venv"], env=self.environment, check=True
        )
        run_build("--sdist", "--outdir", str(folder), str(ROOT))
        build_wheel(folder / f"vla_edge-{__version__}.tar.gz", platform.machine(), folder)
        (wheel,) = folder.glob("*.whl")
        pip = [folder / "venv/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        libraries = {"LD_LIBRARY_PATH": self.environment["LD_LIBRARY_PATH"]}
        subprocess.run([*pip, f"vla-edge{extra} @ {wheel.as_uri()}"], env={**os.environ, **libraries}, check=True)
        shutil.copytree(bundle, folder / "bundle")
        calibration().write(folder / "so101-calibration.json")
        subprocess.run(["chmod", "-R", "go+rX", folder], check=True)
        self.work.mkdir()
        self.work.chmod(0o777)

    def command(self, *arguments: str) -> list[str]:
        """As a user who owns nothing."""
        as_nobody = [str(shutil.which(NOBODY[0])), *NOBODY[1:]] if os.geteuid() == 0 else []
        return [*as_nobody, str(self.folder / "venv" / "bin" / arguments[0]), *arguments[1:]]

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments), env=self.environment, cwd=self.folder, capture_output=True, text=True, timeout=120
        )

    @contextmanager
    def started(self, *arguments: str) -> Iterator[str]:
        """The port of a program that prints it first."""
        with subprocess.Popen(
            self.command(*arguments), env=self.environment, cwd=self.folder, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            assert select.select([process.stdout], [], [], START_S)[0], f"{arguments[0]} did not start"
            try:
                yield json.loads(process.stdout.readline())["port"]
            finally:
                process.terminate()


@pytest.fixture(scope="module")
def robot(bundle_path: Path) -> Iterator[Robot]:
    """With what a robot needs, and no more."""
    with tempfile.TemporaryDirectory(prefix="vla-edge-robot-") as name:
        yield Robot(Path(name), "3.10", "", bundle_path)


def test_the_place_is_as_bare_as_it_should_be(robot: Robot) -> None:
    look = (
        "import os, shutil, sys; print(sys.version_info[:2], [shutil.which(name) for name in ('cc', 'gcc', 'clang')], "
    )
    look += "os.access('.', os.W_OK), os.path.exists(os.environ['HOME']))"
    assert robot.run("python", "-c", look).stdout == "(3, 10) [None, None, None] False False\n"


def test_a_run_against_the_simulated_device(robot: Robot) -> None:
    with robot.started("bridge-sim", "--arm", "franka") as port:
        line = ["--arm", "franka", "--bundle", "bundle", "--bridge", f"serial:{port}", "--camera", "pattern:"]
        refused = robot.run("edge-run", *line)
        assert refused.returncode == 2 and "this user cannot write in" in refused.stderr
        ran = robot.run("edge-run", *line, "--duration", "3", "--report", "work/run.json")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        examined = robot.run("edge-doctor", *line)
        assert examined.returncode == 0, examined.stdout + examined.stderr
    assert json.loads((robot.work / "run.json").read_text())["duration_s"] > 2
    assert "prebuilt in the wheel, by zig" in examined.stdout


def test_a_servo_bus(robot: Robot) -> None:
    """The core in the adapter's process."""
    start = ",".join(str(round(servo.encoder)) for servo in servos_at(SO101.home_rad).values())
    with robot.started("servo-sim", "--start", start, "--offset", ",".join(map(str, OFFSETS))) as port:
        line = ["--arm", "so101", "--bridge", f"feetech:{port}", "--to-home", "--yes"]
        ran = robot.run("edge-run", *line, "--report", "work/home.json")
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_simulated_arm_with_physics(bundle_path: Path) -> None:
    """MuJoCo comes with the `sim` extra, which needs Python 3.11; the same core loads it."""
    with tempfile.TemporaryDirectory(prefix="vla-edge-robot-") as name:
        robot = Robot(Path(name), "3.11", "[sim]", bundle_path)
        line = ["--arm", "franka", "--bundle", "bundle", "--bridge", "sim:", "--duration", "3"]
        ran = robot.run("edge-run", *line, "--report", "work/run.json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
