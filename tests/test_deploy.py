"""The units and the container file in deploy/: their commands parse, their files are there, systemd takes them."""

from __future__ import annotations

import argparse
import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import tomllib

from edge.cli import run_options, serve
from edge.cli.robot_file import read_options

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
PARSERS = {"edge-run": run_options.parser, "edge-serve": serve.parser}


def unit(path: Path) -> dict[str, list[str]]:
    """Settings of the [Service] section, each with its values."""
    text = re.sub(r"^#.*\n", "", path.read_text(), flags=re.M)
    parser = configparser.RawConfigParser(strict=False, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return {name: [value] for name, value in parser["Service"].items()}


def parsed(command: list[str]) -> argparse.Namespace:
    """The arguments of a command, its --robot file that of deploy/."""
    program, *arguments = command
    arguments = [str(DEPLOY / "robot.toml") if one == "/etc/vla-edge/robot.toml" else one for one in arguments]
    root = PARSERS[Path(program).name]()
    return read_options(root, arguments) if Path(program).name == "edge-run" else root.parse_args(arguments)


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_a_units_command_is_one_that_the_program_takes(path: Path) -> None:
    [command] = unit(path)["ExecStart"]
    words = [
        word for word in shlex.split(command.replace("${ARM}", "so101").replace("%d", "/run/key")) if word[0] != "$"
    ]
    args = parsed(words)
    assert args.arm == "so101" and str(args.bundle) == "/var/lib/vla-edge/bundles/current"
    program = Path(words[0]).name
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


def test_the_robot_may_be_real_time_and_does_not_start_again_by_itself_after_a_stop() -> None:
    robot = unit(DEPLOY / "vla-edge-robot.service")
    assert robot["LimitRTPRIO"] == ["90"] and robot["LimitMEMLOCK"] == ["infinity"]
    assert "RestrictRealtime" not in robot and robot["ProtectHome"] == ["true"] and robot["User"] == ["vla-edge"]
    assert robot["RestartPreventExitStatus"] == ["1 2"] and "--wait" in robot["ExecStart"][0]
    assert robot["WatchdogSignal"] == ["SIGTERM"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.stem)
def test_systemd_takes_a_unit(path: Path, tmp_path: Path) -> None:
    """Every word of it; the program and the user are those of this machine."""
    text = re.sub(r"/opt/vla-edge/bin/[a-z-]+", "/bin/true", path.read_text())
    text = re.sub(r"^(User|Group)=vla-edge$", r"\1=root", text, flags=re.M)
    (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / path.name)], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0 and path.name not in done.stderr, done.stderr
    (tmp_path / path.name).write_text(text.replace("LimitRTPRIO", "LimitRealTime"))
    wrong = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / path.name)], capture_output=True, text=True, timeout=30
    )
    assert "LimitRTPRIO" not in text or "LimitRealTime" in wrong.stderr, "a word that it does not know is not found"


def test_the_container_file_names_what_there_is() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    lines = re.sub(r"\\\n", "", text).splitlines()
    found = dict(line.split(None, 1) for line in lines if re.match(r"[A-Z]+ ", line))
    assert {"FROM", "COPY", "RUN", "USER", "CMD"} <= set(found)
    extras = re.search(r"EXTRAS=(\S+)", text)
    known = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras is not None and set(extras[1].split(",")) <= set(known)
    command = [word.strip('", []') for word in found["CMD"].split(",")]
    assert parsed(command).wait and "10001" in found["USER"] and "--no-create-home" in found["RUN"]
