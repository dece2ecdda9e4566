"""What cannot work is refused before anything is opened or computed, in one line that names it."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import pytest

from edge.arms import load_arm
from edge.arms.drives import DRIVES
from edge.cameras import CameraError, check_camera
from edge.errors import InputError
from edge.run.workcell import Workcell
from export.commands.export import main as edge_export

SHIPPED = Path(__file__).resolve().parents[1] / "checkpoints" / "reach.pt"


@pytest.mark.parametrize("url", ["v4l2:/dev/video0", "file:/nowhere.mp4", "v4l2:/dev/video0?fps=5"])
def test_a_camera_without_its_library_is_named_before_the_arm_is_opened(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(CameraError, match=r"needs cv2, which is missing: pip install 'vla-edge\[camera\]'"):
        Workcell(load_arm("franka"), "serial:/dev/nowhere", None, "", (f"front={url}",))


@pytest.mark.parametrize(
    ("url", "line"),
    [
        ("v4l2:/dev/video99", "/dev/video99: there is no such camera"),
        ("file:/nowhere.mp4", "/nowhere.mp4: there is no such recording"),
        ("v4l2:/dev/video0?fps=x", "fps must be a number"),
        ("nothing:", "nothing"),
    ],
)
def test_a_camera_that_is_not_there_is_named_before_the_arm_is_opened(url: str, line: str) -> None:
    with pytest.raises(CameraError, match=line):
        Workcell(load_arm("franka"), "serial:/dev/nowhere", None, "", (url,))
    check_camera("pattern:")


@pytest.mark.parametrize("address", ["no-such-robot.invalid", "300.1.2.3"])
def test_a_franka_at_an_address_that_is_none(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Known before libfranka is loaded, and within seconds."""
    monkeypatch.setitem(sys.modules, "franky", None)
    began_s = time.monotonic()
    with pytest.raises(
        InputError, match=f"'fci:{address}': no computer answers there .*; check the address"
    ) as refused:
        DRIVES.read(f"fci:{address}").open(load_arm("franka"), lambda text: None)
    assert time.monotonic() - began_s < 10.0 and "\n" not in str(refused.value)


def test_an_address_that_does_not_answer_is_given_up_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[object, float]] = []

    def silent(address: object, timeout: float) -> socket.socket:
        asked.append((address, timeout))
        raise TimeoutError("timed out")

    monkeypatch.setattr(socket, "create_connection", silent)
    with pytest.raises(InputError, match=r"no computer answers there \(no answer\)"):
        DRIVES.read("fci:172.16.0.9").open(load_arm("franka"), lambda text: None)
    assert 0 < sum(timeout for _, timeout in asked) < 10.0


@pytest.mark.parametrize("place", ["/proc/bundle", "/dev/null/bundle", "{tmp}/file/bundle", "/sys/x/y/bundle"])
def test_a_place_where_nothing_can_be_made_is_named_before_the_export(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    out = place.replace("{tmp}", str(tmp_path))
    began_s = time.monotonic()
    assert edge_export([str(SHIPPED), "-o", out]) == 2
    said = capsys.readouterr()
    assert time.monotonic() - began_s < 5.0 and said.out == ""
    assert said.err.count("\n") == 1 and "name another folder" in said.err and "edge-export: -o " in said.err
