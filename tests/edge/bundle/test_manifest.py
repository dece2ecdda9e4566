"""A bundle that is not what its manifest says never reaches an engine."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from edge.bundle import BundleError, add_to_verification, load_bundle, sha256
from edge.engines import EngineError, OnnxRuntimeEngine


@pytest.fixture
def copy(bundle_path: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_path, tmp_path / "bundle"))


def edit(bundle: Path, change: Callable[[dict], object]) -> None:
    document = json.loads((bundle / "manifest.json").read_text())
    change(document)
    (bundle / "manifest.json").write_text(json.dumps(document))


def refused(bundle: Path, message: str) -> None:
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(bundle)
    assert "\n" not in str(caught.value)


def test_the_exported_bundle_loads(copy: Path) -> None:
    manifest = load_bundle(copy).manifest
    assert set(manifest.engines) == {"backbone", "history_encoder", "action_decoder"}
    assert manifest.policy.horizon == 15


def test_what_is_found_out_later_joins_the_verification(copy: Path) -> None:
    before = json.loads((copy / "verification.json").read_text())
    add_to_verification(load_bundle(copy), "closed_loop", {"succeeded": 47, "episodes": 50})
    load_bundle(copy)
    after = json.loads((copy / "verification.json").read_text())
    assert after.pop("closed_loop") == {"succeeded": 47, "episodes": 50}
    assert after == before
    (copy / "verification.json").write_text(json.dumps({**after, "passed": True, "more": 1}))
    refused(copy, r"verification\.json: its content is not what the manifest says")


def test_a_missing_engine(copy: Path) -> None:
    (copy / "action_decoder.onnx").unlink()
    refused(copy, r"action_decoder\.onnx: missing; copy the whole bundle")


def test_a_changed_engine(copy: Path) -> None:
    data = bytearray((copy / "backbone.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "backbone.onnx").write_bytes(bytes(data))
    refused(copy, r"backbone\.onnx: its content is not what the manifest says \(SHA-256 differs\)")


def test_a_wrong_format_number(copy: Path) -> None:
    edit(copy, lambda document: document.update(format=7))
    refused(copy, "format 7, this version reads 1; export the checkpoint again")


def test_a_manifest_that_is_cut_short(copy: Path) -> None:
    text = (copy / "manifest.json").read_text()
    (copy / "manifest.json").write_text(text[:200])
    refused(copy, r"manifest\.json: cannot be read")
    edit_free = copy / "manifest.json"
    edit_free.write_text('{"format": 1}')
    refused(copy, "incomplete")


def test_an_engine_that_the_manifest_does_not_hash(copy: Path) -> None:
    edit(copy, lambda document: document["files"].pop("backbone.onnx"))
    refused(copy, "does not list all three engines")


def test_a_file_outside_the_bundle(copy: Path) -> None:
    edit(copy, lambda document: document["files"].update({"../../etc/passwd": "0"}))
    refused(copy, "names a file outside the bundle")


def test_a_failed_verification(copy: Path) -> None:
    report = json.loads((copy / "verification.json").read_text())
    report["passed"] = False
    (copy / "verification.json").write_text(json.dumps(report))
    edit(copy, lambda document: document["files"].update({"verification.json": sha256(copy / "verification.json")}))
    refused(copy, "must not drive an arm")
    edit(copy, lambda document: document["files"].pop("verification.json"))
    refused(copy, "never verified")


def test_a_checkpoint_where_a_bundle_belongs(copy: Path) -> None:
    refused(copy / "backbone.onnx", "that is a checkpoint, export it first")
    refused(copy / "nothing", "make one with edge-export")


def test_an_arm_it_was_not_trained_for(copy: Path) -> None:
    with pytest.raises(BundleError, match="was trained for fr3, not for 'so101'"):
        load_bundle(copy).embodiment("so101")


def test_an_arm_with_more_axes_than_the_policy_controls(copy: Path) -> None:
    bundle = load_bundle(copy)
    assert len(bundle.embodiment("fr3", 7).joints) == 7
    with pytest.raises(BundleError, match="this policy controls 7 axes, the arm has 8; choose another arm or bundle"):
        bundle.embodiment("fr3", 8)


def test_an_engine_that_is_not_the_manifests(copy: Path) -> None:
    bundle = load_bundle(copy)
    specs = bundle.manifest.engines
    with pytest.raises(EngineError, match="the manifest says"):
        OnnxRuntimeEngine(bundle.file("backbone.onnx"), specs["history_encoder"], threads=1)
    (copy / "backbone.onnx").write_bytes(b"not onnx")
    with pytest.raises(EngineError, match="ONNX Runtime cannot open it"):
        OnnxRuntimeEngine(copy / "backbone.onnx", specs["backbone"], threads=1)
