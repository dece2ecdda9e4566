"""From the logged pixels to the chunks again: a run on the simulated clock, and what was changed in its log."""

from __future__ import annotations

import shutil
from base64 import b64decode, b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.bundle import load_bundle
from edge.cli.run import main
from edge.log.pictures import decoded, encoded, pixel_hash
from edge.policy.base import open_policy
from edge.run import recompute
from edge.run.recompute import Recomputation
from edge.sim.lockstep import LockstepSettings, run_lockstep
from edge.sim.scenes import open_scene
from tests.edge.log.support import rewrite
from tests.support import FRANKA

TASK = "reach the red cube"


@pytest.fixture(scope="module")
def whole(bundle_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("logged") / "run.mcap"
    bundle = load_bundle(bundle_path)
    policy = open_policy(bundle, FRANKA.name, TASK, 1)
    run_lockstep(bundle, FRANKA, policy, open_scene(FRANKA, 3), LockstepSettings(TASK, 2.5, log=path))
    return path


@pytest.fixture
def log(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path))


def edge_run(capsys: pytest.CaptureFixture[str], log: Path, bundle: Path) -> tuple[int, str]:
    code = main(["--replay", str(log), "--recompute", "--bundle", str(bundle)])
    found = capsys.readouterr()
    return code, found.out + found.err


def of_request(number: int, change: Callable[[dict[str, Any]], dict[str, Any] | None]) -> Any:
    """For `rewrite`: changes the frame of one chunk."""

    def changed(topic: str, content: dict[str, Any]) -> dict[str, Any] | None:
        return change(content) if topic.endswith("/used") and content["request"] == number else content

    return changed


def flipped(content: dict[str, Any], with_hash: bool) -> dict[str, Any]:
    pixels = decoded(b64decode(content["data"]))
    pixels[60, 60, 1] ^= 1
    content["data"] = b64encode(encoded(pixels, "png")).decode()
    return content | ({"sha256": pixel_hash(pixels)} if with_hash else {})


def test_every_chunk_is_the_same_to_the_last_bit(log: Path, bundle_path: Path, capsys: Any) -> None:
    code, said = edge_run(capsys, log, bundle_path)
    assert code == 0, said
    found = Recomputation(load_bundle(bundle_path), "auto", 1).run(log)
    assert found.same and found.compared == found.identical == found.frames >= 4 and not found.without_frames
    assert f"{found.compared} to the last bit" in said and "identical" in said


def test_a_pixel_whose_hash_was_made_anew_is_found_and_its_chunk_named(
    log: Path, bundle_path: Path, capsys: Any
) -> None:
    """The least change there is: one bit of one colour of one pixel."""
    rewrite(log, of_request(3, lambda content: flipped(content, True)))
    code, said = edge_run(capsys, log, bundle_path)
    assert code == 1 and "verdict      identical" in said, "the decisions are still those of the chunks"
    assert "DIFFERENT, first that of request 3, at" in said and "logged" in said


def test_a_pixel_that_was_changed_alone_is_named_with_its_frame(log: Path, bundle_path: Path, capsys: Any) -> None:
    rewrite(log, of_request(2, lambda content: flipped(content, False)))
    code, said = edge_run(capsys, log, bundle_path)
    assert code == 1 and "request 2" in said and "do not have the hash" in said


def test_a_chunk_without_its_frame_is_no_agreement(log: Path, bundle_path: Path, capsys: Any) -> None:
    rewrite(log, of_request(2, lambda content: None))
    code, said = edge_run(capsys, log, bundle_path)
    assert code == 2 and "1 chunks without all of their frames, from request 2" in said


def test_elsewhere_the_gate_of_engines_decides(
    log: Path, bundle_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another machine: the last bit says nothing there, and a picture of something else does."""
    monkeypatch.setattr(recompute, "this_machine", lambda: {"processor": "another"})
    rewrite(log, of_request(3, lambda content: flipped(content, True)))
    code, said = edge_run(capsys, log, bundle_path)
    assert code == 0 and "agree, on another machine" in said

    def black(content: dict[str, Any]) -> dict[str, Any]:
        pixels = 0 * decoded(b64decode(content["data"]))
        return content | {"data": b64encode(encoded(pixels, "png")).decode(), "sha256": pixel_hash(pixels)}

    rewrite(log, of_request(4, black))
    code, said = edge_run(capsys, log, bundle_path)
    assert code == 1 and "request 4" in said


def test_what_cannot_be_computed_again_says_why(log: Path, bundle_path: Path, capsys: Any) -> None:
    def refused(change: Callable[[dict[str, Any]], object]) -> str:
        recomputation = Recomputation(load_bundle(bundle_path), "auto", 1)
        header: dict[str, Any] = {
            "settings": {"task": TASK, "seed": 0, "arm": FRANKA.name},
            "arm": {"profile": f"{FRANKA.hash32:08x}"},
            "bundle": {"checkpoint_sha256": load_bundle(bundle_path).manifest.checkpoint_sha256, "files": {}},
            "cameras": [{"name": "1"}],
        }
        change(header)
        with pytest.raises(Exception) as caught:
            recomputation._begin(log, header)
        return str(caught.value)

    assert "give that bundle" in refused(lambda header: header["bundle"].update(checkpoint_sha256="0" * 64))
    assert "no bundle drove that run" in refused(lambda header: header.update(bundle=None))
    assert "a log without frames" in refused(lambda header: header.pop("cameras"))
    assert "another profile" in refused(lambda header: header["arm"].update(profile="0"))
    assert "saw through wrist" in refused(lambda header: header.update(cameras=[{"name": "wrist"}]))
    assert main(["--replay", str(log), "--recompute"]) == 2
    assert "give the bundle of that run" in capsys.readouterr().err
