"""`edge-export` on folders of LeRobot's: what it prints, what the bundle says, and one line for everything else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from edge.bundle import load_bundle
from export.commands.export import main
from tests.conftest import SHIPPED
from tests.export.families.lerobot_engines import FOLDERS

ARM = ("--arm", "so101", "--rate", "30")


@pytest.mark.long
def test_from_a_folder_to_a_bundle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two observations, denoising, and noise for every step: what a manifest can say of a policy without text."""
    folder, out = FOLDERS / "diffusion_variant", tmp_path / "bundle"
    assert main([str(folder), "-o", str(out), *ARM, "--samples", "4", "--precision", "bf16"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:7]] == ["family", "cameras", "arm", "order", "units", "rate", "chunk"]
    assert "front 48 x 64, wrist 48 x 64" in lines[1] and "degrees" in lines[4] and "30 Hz" in lines[5]
    manifest = load_bundle(out).manifest
    policy = manifest.policy
    assert (policy.family, policy.precision, policy.horizon, policy.observations) == ("diffusion", "bf16", 7, 2)
    assert {port: feed.kind for port, feed in manifest.graph.feeds.items()} == {
        "backbone.state": "state",
        "backbone.frame_front": "frame",
        "backbone.frame_wrist": "frame",
        "decoder.noise": "normal",
        "decoder.step_noise": "normal",
    }
    assert manifest.graph.links == (("backbone.condition", "decoder.condition"),)
    arm = manifest.arms[0]
    assert arm.step_s == 1 / 30 and [axis.action.unit for axis in arm.axes] == ["deg"] * 5 + ["percent"]
    assert len(arm.training.action_min) == 6 and arm.training.state_spread
    report = json.loads((out / "verification.json").read_text())
    assert report["passed"] and len(report["agreement"]["whole_chunk"]["axes_max_abs"]) == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "add --dataset DIR"),
        ((*ARM, "--flow-steps", "4"), "--flow-steps"),
        ((*ARM, "--precision", "int8"), "--observations"),
        ((*ARM, "--units", "radians"), "--units radians does not fit"),
        ((*ARM, "--base", "."), "leave out --base"),
        ((*ARM, "--preset", "tiny"), "has its own sizes"),
    ],
)
def test_bad_options_are_refused_in_one_line(
    arguments: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(FOLDERS / "act"), "-o", str(tmp_path / "bundle"), *arguments]) == 2
    text = capsys.readouterr().err
    assert text.startswith("edge-export: ") and message in text and text.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_needs_no_arm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(SHIPPED), "-o", str(tmp_path / "bundle"), *ARM]) == 2
    assert "says itself which arm" in capsys.readouterr().err


def test_an_empty_folder_is_no_policy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder").mkdir()
    assert main([str(tmp_path / "folder"), "-o", str(tmp_path / "bundle"), *ARM]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("kept", ["model.safetensors", "config.json", "policy_preprocessor.json"])
def test_one_file_of_a_folder_is_recognised_and_refused(
    kept: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    shutil.copy(FOLDERS / "act" / kept, tmp_path / "folder")
    assert main([str(tmp_path / "folder"), "-o", str(tmp_path / "bundle"), *ARM]) == 2
    assert "missing" in (text := capsys.readouterr().err) or "processors" in text
