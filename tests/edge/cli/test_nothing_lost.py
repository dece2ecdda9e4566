"""No command that records writes over what somebody needs, and each says so before it opens anything."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.arms.reading import PROFILE_FOLDER
from edge.cli import adapter, bridge_sim, calibrate, can_sim
from firmware_bridge.adapters.fci_sim import server as fci_sim
from firmware_bridge.adapters.feetech import servo_sim

Main = Callable[[list[str]], int]
NO_PORT = "feetech:/dev/none"
CALIBRATION = json.dumps({"format": 1, "arm": "so101", "joints": {}})
COMMANDS: dict[str, tuple[Main, list[str], str]] = {
    "edge-adapter": (adapter.main, ["--arm", "so101", "--drive", NO_PORT], "--trace"),
    "edge-calibrate": (calibrate.main, ["--arm", "so101", "--drive", NO_PORT], "-o"),
    "bridge-sim": (bridge_sim.main, ["--arm", "franka"], "--trace"),
    "can-sim": (can_sim.main, ["--arm", "yam"], "--trace"),
    "fci-sim": (fci_sim.main, [], "--trace"),
    "servo-sim": (servo_sim.main, [], "--trace"),
}
OPENS = ("os.openpty", "os.execv")


class Opened(BaseException):
    """Something was opened: a line, a pseudo-terminal, another program."""


@pytest.fixture(autouse=True)
def nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object) -> None:
        raise Opened

    for name in OPENS:
        monkeypatch.setattr(name, opened)
    monkeypatch.setattr("edge.cli.calibrate.open_bus", opened)
    monkeypatch.setattr("edge.cli.adapter.Terminal", opened)
    monkeypatch.setattr("edge.cli.can_sim.PythonCanBus", opened)
    monkeypatch.setattr(servo_sim, "Terminal", opened)
    monkeypatch.setattr(fci_sim, "FciServer", opened)


def call(name: str, path: Path, *more: str) -> int | None:
    """The exit code; None for a command that went on to open its line."""
    main, arguments, option = COMMANDS[name]
    try:
        return main([*arguments, option, str(path), *more])
    except Opened:
        return None
    except SystemExit as leaving:
        return int(leaving.code or 0)


def older(folder: Path) -> Path:
    path = folder / "older.csv"
    path.write_text("an older recording")
    return path


def in_bundle(folder: Path) -> Path:
    (folder / "bundle").mkdir()
    (folder / "bundle" / "manifest.json").write_text("{}")
    path = folder / "bundle" / "backbone.onnx"
    path.write_text("weights")
    return path


def linked(folder: Path) -> Path:
    path = folder / "link.csv"
    path.symlink_to(in_bundle(folder))
    return path


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


PLACES: dict[str, Callable[[Path], Path]] = {
    "a file of a bundle": in_bundle,
    "a link to one": linked,
    "a folder": lambda folder: folder,
    "in no folder": lambda folder: folder / "none" / "trace.csv",
    "a pipe": pipe,
    "a device": lambda folder: Path("/dev/full"),
}


@pytest.mark.parametrize("place", ["an older recording", *PLACES])
@pytest.mark.parametrize("name", COMMANDS)
def test_what_is_there_stays(name: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = {"an older recording": older, **PLACES}[place](tmp_path)
    before = path.read_bytes() if path.is_file() else None
    overwriting = [[], ["--overwrite"]] if place in PLACES and name != "edge-calibrate" else [[]]
    for more in overwriting:
        assert call(name, path, *more) == 2
        said = capsys.readouterr().err
        assert said.startswith(f"{name}: ") and said.count("\n") == 1 and "name " in said, said
        assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "edge-calibrate"])
def test_an_older_recording_may_be_let_go(name: str, tmp_path: Path) -> None:
    assert call(name, older(tmp_path), "--overwrite") is None
    assert call(name, tmp_path / "new.csv") is None


def test_an_older_calibration_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "so101-calibration.json"
    path.write_text(CALIBRATION)
    assert call("edge-calibrate", path) is None
    for other in ({"format": 1}, {"created_by": "vla-edge", "ended": "duration"}, []):
        path.write_text(json.dumps(other))
        assert call("edge-calibrate", path) == 2 and path.read_text() == json.dumps(other)


def test_an_arms_file_is_an_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = Path(shutil.copy(PROFILE_FOLDER / "so101.toml", tmp_path / "mine.toml"))
    before = profile.read_bytes()
    for name, option in (("edge-adapter", "--trace"), ("edge-adapter", "--world"), ("bridge-sim", "--trace")):
        main, arguments, _ = COMMANDS[name]
        rest = arguments[2:]
        assert main(["--arm", str(profile), *rest, option, str(profile), "--overwrite"]) == 2
        assert profile.read_bytes() == before


@pytest.mark.parametrize("option", ["--trace", "--world"])
def test_a_calibration_and_a_key_are_inputs_of_the_adapter(option: str, tmp_path: Path) -> None:
    calibration, key = tmp_path / "mine.json", tmp_path / "arm.key"
    calibration.write_text(CALIBRATION)
    key.write_text("secret")
    arguments = ["--arm", "so101", "--drive", f"{NO_PORT}?calibration={calibration}", "--overwrite"]
    arguments += ["--listen", "--key-file", str(key)]
    for path in (calibration, key):
        before = path.read_bytes()
        assert adapter.main([*arguments, option, str(path)]) == 2 and path.read_bytes() == before
