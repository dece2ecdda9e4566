"""A package of somebody else's, built and installed by pip: one extension of each kind, used by the usual commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edge.bundle import load_bundle
from edge.cameras import CAMERAS
from edge.errors import InputError
from edge.policy.base import open_policy
from export.commands.export import main as export
from export.families.base import FAMILIES
from firmware_bridge.simulator import SimulatedArm, SimulatorProcess
from tests.support import FRANKA

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = Path(__file__).parent / "outside"


class Installed:
    """The project with the package beside it, for commands in processes of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.site = folder, folder / "site"
        source = folder / "source"
        shutil.copytree(PACKAGE, source)  # setuptools builds in place
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
        subprocess.run([*pip, "--target", str(self.site), str(source)], check=True, timeout=120)

    def run(self, *arguments: str, code: int = 0) -> str:
        """What a command prints on both streams; it must end with `code`."""
        path = os.pathsep.join([str(self.site), str(ROOT)])
        done = subprocess.run(
            [sys.executable, "-m", *arguments],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def doctor(self, *arguments: str) -> dict[str, dict[str, str]]:
        """The checks by name. What this machine lacks is none of the package's business, so both codes are fine."""
        script = f"import edge.cli.doctor as doctor; doctor.main({[*arguments, '--json', 'doctor.json']!r})"
        (self.folder / "doctor.py").write_text(script)
        self.run("doctor")
        document = json.loads((self.folder / "doctor.json").read_text())
        return {check["name"]: check for check in document["checks"]}


@pytest.fixture(scope="module")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("outside"))


def test_help_names_what_was_added(outside: Installed) -> None:
    text = " ".join(outside.run("edge.cli.run", "--help").split())
    for name in ("noise:...", "tunnel:...", "still:...", ",table}"):
        assert name in text, f"no {name} in the help"
    assert "noise" not in CAMERAS.names(), "without the package nothing of it is there"


@pytest.fixture(scope="module")
def bundle(outside: Installed) -> Path:
    """A bundle of the family, made by the exporter's command; in this process, which has torch already."""
    (outside.folder / "wait.table").write_text("table of increments\n" + "0 0 0 0 0 0 0\n" * 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(outside.site)
        patch.delitem(vars(FAMILIES), "_outside", raising=False)  # it may have looked before there was a package
        assert export([str(outside.folder / "wait.table"), "-o", str(outside.folder / "bundle")]) == 0
        patch.delitem(vars(FAMILIES), "_outside")
    return outside.folder / "bundle"


def test_a_camera_a_line_a_policy_and_its_engine(outside: Installed, bundle: Path) -> None:
    device = SimulatorProcess(SimulatedArm(FRANKA.name, FRANKA.home_rad))
    arguments = ("--arm", "franka", "--bundle", "bundle", "--task", "wait", "--camera", "noise:?level=9")
    try:
        checks = outside.doctor(*arguments, "--bridge", f"tunnel:{device.port}")
    finally:
        device.close()
    found = {name: checks[name]["found"] for name in ("camera 1", "handshake", "inference")}
    assert {name: checks[name]["status"] for name in found} == dict.fromkeys(found, "ok"), found
    assert "noise up to 9" in found["camera 1"] and found["inference"].startswith("table: finite and repeatable")


def test_an_arm_with_a_protocol_of_its_own(outside: Installed) -> None:
    assert outside.doctor("--arm", "franka", "--bridge", "still:here")["handshake"]["status"] == "ok"


def test_a_policy_of_somebody_elses_refuses_before_the_run(outside: Installed, bundle: Path) -> None:
    arguments = ("edge.cli.run", "--arm", "franka", "--bundle", "bundle", "--engine", "table", "--task")
    assert "edge-run: a table knows no task 'dance'; give --task wait" in outside.run(*arguments, "dance", code=2)


def test_a_bundle_whose_policy_is_not_installed_is_refused(bundle: Path) -> None:
    with pytest.raises(InputError, match="no package for policies of the family 'table' is installed"):
        open_policy(load_bundle(bundle), "franka", "wait", 1)
